"""Accuracy under corruption: 15 families at 5 severities, probes, published layouts (docs/robustness.md)."""

from excite.robustness.corruptions import CORRUPTIONS, corrupt
from excite.robustness.probes import PROBES
from excite.robustness.scores import Scores, score

__all__ = ["CORRUPTIONS", "PROBES", "Scores", "corrupt", "score"]
