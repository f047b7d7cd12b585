"""Timing that can be compared: everything in turn (A B B A ...), with medians, spreads and paired ratios."""

from excite.measure.bench.environment import environment
from excite.measure.bench.timing import Clock, Ratio, Timing, interleave, ratio

__all__ = ["Clock", "Ratio", "Timing", "environment", "interleave", "ratio"]
