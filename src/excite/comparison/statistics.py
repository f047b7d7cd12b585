"""Mean, deviation, and the paired gain over the baseline: its interval, and a verdict that holds for a whole table."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from excite.common.extras import require

NOISE, BETTER, WORSE = "within noise", "better", "worse"
LEVEL = 0.05
# Accuracies are shares of thousands of images in float32: differences nearer than this are the same difference.
SAME = 1e-6


@dataclass(frozen=True)
class Gain:
    """The mean of the differences to the baseline, seed by seed, its 95 % interval and p-value (paired Student t).

    low, high and p are None, with a `reason`, where no test is possible; mean too where no seed is common.
    p_holm: p corrected for all variants and looks of the table (`corrected`); a gain that stands alone is judged by p.
    differences: value - baseline, in the order of the pairs.
    """

    mean: float | None
    low: float | None
    high: float | None
    pairs: int
    reason: str = ""
    p: float | None = None
    p_holm: float | None = None
    differences: tuple[float, ...] = ()

    @property
    def clear(self) -> bool:
        """Whether the verdict is better or worse."""
        return self.verdict in (BETTER, WORSE)

    @property
    def verdict(self) -> str:
        """Return better or worse where the corrected p-value is below 0.05, else within noise."""
        p = self.p if self.p_holm is None else self.p_holm
        if p is None or self.mean is None:
            return self.reason
        if p >= LEVEL:
            return NOISE
        return BETTER if self.mean > 0 else WORSE


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (None for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_gain(values: Sequence[float], baseline: Sequence[float]) -> Gain:
    """Return the gain of `values` over `baseline`, paired by position (the same seed).

    Differences that are all equal have no variance to judge them by (two seeds often agree by chance): no interval.
    """
    differences = [v - b for v, b in zip(values, baseline, strict=True)]
    if not differences:
        return Gain(None, None, None, 0, "no seed in common with the baseline")
    mean = statistics.fmean(differences)
    n = len(differences)
    if n < 2:
        return Gain(mean, None, None, n, "one seed: no interval", differences=tuple(differences))
    if max(differences) - min(differences) <= SAME:
        return Gain(mean, None, None, n, "equal differences: no interval", differences=tuple(differences))
    require("scipy")
    from scipy.special import stdtr, stdtrit

    error = statistics.stdev(differences) / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.975)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Gain(mean, mean - half, mean + half, n, p=p, differences=tuple(differences))


def withheld(gain: Gain) -> Gain:
    """Return a gain between runs that were not made alike: a difference, and no verdict on it."""
    return Gain(gain.mean, None, None, gain.pairs, "not comparable")


def p_in_words(p: float) -> str:
    """Return a p-value as tables show it: on the side of the level on which it is."""
    if p < 0.001:
        return "<0.001"
    text = f"{p:.3f}"
    return f"{p:.4f}" if p < LEVEL <= float(text) else text


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's corrected p-values: a family is wrong anywhere with at most the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def corrected(gains: Sequence[Gain], looks: int = 1) -> list[Gain]:
    """Return the gains of one table with Holm's p-values; a gain without a p-value counts as one that shows nothing.

    looks: how often the table is judged as it grows; each time a level of 0.05 / looks is spent (Bonferroni), so that
    whoever stops at the first clear verdict is wrong in at most 5 % of tables all the same.
    """
    values = holm([1.0 if gain.p is None else gain.p for gain in gains])
    return [
        gain if gain.p is None else replace(gain, p_holm=min(1.0, looks * p))
        for gain, p in zip(gains, values, strict=True)
    ]


def visible(differences: Sequence[Sequence[float]], gains: int, looks: int = 1, power: float = 0.8) -> float | None:
    """Return the true gain that a table finds with probability `power`, where all seeds vary as these differences do.

    differences: per variant, value - baseline seed by seed; their pooled deviation is taken, and Student's test at the
    level that Holm gives the clearest of `gains` variants. None where nothing varies, or one seed cannot tell.
    """
    samples = [sample for sample in differences if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in samples)
    if not freedom or not gains:
        return None
    deviation = math.sqrt(sum(statistics.variance(sample) * (len(sample) - 1) for sample in samples) / freedom)
    if deviation <= SAME:
        return None
    require("scipy")
    from scipy.optimize import brentq
    from scipy.special import nctdtr, stdtrit

    n = max(map(len, samples))
    bound = float(stdtrit(n - 1, 1 - LEVEL / (2 * gains * looks)))

    def missed(shift: float) -> float:
        return float(nctdtr(n - 1, shift, bound)) - (1 - power)

    largest = 1.0
    while missed(largest) > 0:
        largest *= 2
    return float(brentq(missed, 0, largest)) * deviation / math.sqrt(n)
