"""The fair experiment: one backbone, one recipe, the same data order and seeds, several methods."""

from excite.compare.experiment import compare
from excite.compare.plan import Plan, Run
from excite.compare.results import Results, collect

__all__ = ["Plan", "Results", "Run", "collect", "compare"]
