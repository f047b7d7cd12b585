"""The fair experiment: one backbone, one recipe, the same data order and seeds, several methods."""

from excite.comparison.experiment import compare, run_plan
from excite.comparison.plan import Plan, Run
from excite.comparison.results import Results, collect
from excite.comparison.variants import Variant

__all__ = ["Plan", "Results", "Run", "Variant", "collect", "compare", "run_plan"]
