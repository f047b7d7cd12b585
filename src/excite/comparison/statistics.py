"""Mean, deviation, and the paired gain over the baseline with its interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from excite.common.extras import require

NOISE, BETTER, WORSE = "within noise", "better", "worse"


@dataclass(frozen=True)
class Gain:
    """The mean of the differences to the baseline, seed by seed, and its 95 % interval (Student's t).

    low and high are None, with a `reason`, where no interval can be given; mean too where no seed is common.
    """

    mean: float | None
    low: float | None
    high: float | None
    pairs: int
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Return what the interval says: better, worse, or within noise."""
        if self.low is None or self.high is None:
            return self.reason
        if self.low > 0:
            return BETTER
        return WORSE if self.high < 0 else NOISE


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (None for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_gain(values: Sequence[float], baseline: Sequence[float]) -> Gain:
    """Return the gain of `values` over `baseline`, paired by position (the same seed)."""
    differences = [v - b for v, b in zip(values, baseline, strict=True)]
    if not differences:
        return Gain(None, None, None, 0, "no seed in common with the baseline")
    mean = statistics.fmean(differences)
    n = len(differences)
    if n < 2:
        return Gain(mean, None, None, n, "one seed: no interval")
    require("scipy")
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Gain(mean, mean - half, mean + half, n)
