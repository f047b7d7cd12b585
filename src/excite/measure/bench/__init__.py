"""Timing that can be compared: everything in turn (A B B A ...), with medians, spreads and paired ratios."""

from collections.abc import Callable
from typing import Any

from excite.measure.bench.environment import environment
from excite.measure.bench.timing import Clock, Ratio, Timing, interleave, ratio

__all__ = ["Clock", "Ratio", "Timing", "bench", "environment", "interleave", "ratio"]


def bench(*args: Any, **options: Any) -> Any:
    """Measure networks; the arguments are those of `measure.bench.run.bench`."""
    from excite.measure.bench.run import bench as run_bench

    call: Callable[..., Any] = run_bench
    return call(*args, **options)
