"""Time several functions in turn, so that a drifting machine drifts under all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from excite.errors import UsageError


class Clock:
    """A stopwatch for the CPU: seconds of one stretch of work."""

    def start(self) -> None:
        """Begin."""
        self.began = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since `start`."""
        return time.perf_counter() - self.began


class CudaClock(Clock):
    """A stopwatch for a CUDA device: events around the work, then a wait for the device."""

    def start(self) -> None:
        """Wait for earlier work, then put an event before what follows."""
        import torch

        torch.cuda.synchronize()
        self.before = torch.cuda.Event(enable_timing=True)
        self.after = torch.cuda.Event(enable_timing=True)
        self.before.record()

    def stop(self) -> float:
        """Put an event behind the work, wait for it, and return the seconds between the two."""
        import torch

        self.after.record()
        torch.cuda.synchronize()
        return self.before.elapsed_time(self.after) / 1000


@dataclass
class Timing:
    """Seconds per call of one function: one sample per round, each a mean over `calls` calls."""

    name: str
    calls: int
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds per call."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile, seconds."""
        return quantile(self.samples, 0.25), quantile(self.samples, 0.75)

    @property
    def iqr(self) -> float:
        """The interquartile range, seconds."""
        low, high = self.quartiles
        return high - low


@dataclass(frozen=True)
class Ratio:
    """How much longer than the first function: median over the rounds, with two spreads.

    low, high: the middle 90 % of the rounds' own ratios; ci_low, ci_high: interval of the median, which holds it with
    probability `coverage` (see `median_interval`); rounds: how many ratios there are.
    """

    value: float
    low: float
    high: float
    ci_low: float
    ci_high: float
    coverage: float
    rounds: int


def quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile, linear between neighbours."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (low, high, coverage) of the median: two of the sorted values and the probability that it lies between.

    A value falls below the median as a coin falls, so the number of values below it is binomial, whatever their
    distribution: the k-th smallest and k-th largest hold it with 1 - 2 P(B < k), B ~ Bin(n, 1/2). The largest k that
    reaches `confidence` is taken. Fewer than six values cannot reach 0.95: then the whole range, with its coverage.
    Raises UsageError for fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise UsageError(f"an interval needs at least two values, got {n}")
    ordered = sorted(values)
    rank, coverage, tail = 1, 1 - 2 * 0.5**n, 0.5**n
    for k in range(2, n // 2 + 1):
        tail += math.comb(n, k - 1) * 0.5**n
        if 1 - 2 * tail < confidence:
            break
        rank, coverage = k, 1 - 2 * tail
    return ordered[rank - 1], ordered[n - rank], coverage


def ratio(timing: Timing, reference: Timing) -> Ratio:
    """Compare two functions measured in the same rounds: the ratio is taken within each round, then the median."""
    pairs = [a / b for a, b in zip(timing.samples, reference.samples, strict=True)]
    low, high, coverage = median_interval(pairs)
    return Ratio(
        statistics.median(pairs), quantile(pairs, 0.05), quantile(pairs, 0.95), low, high, coverage, len(pairs)
    )


def interleave(
    callables: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    *,
    warmup: int = 3,
    min_time: float = 0.1,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Time functions in turn: A B C, then C B A, and so on, for `rounds` rounds.

    warmup: calls of each before anything is timed; min_time: seconds that a sample lasts at least (so many calls are
    made in a row); clock: `CudaClock()` for work on a CUDA device; progress: called with (rounds done, rounds).
    Raises UsageError for no function, fewer than three rounds, no warm-up or a negative time.
    """
    if not callables or rounds < 3 or warmup < 1 or min_time < 0:
        raise UsageError(
            f"timing needs a function, 3 rounds, 1 warm-up call and min_time >= 0; got {len(callables)} functions, "
            f"rounds={rounds}, warmup={warmup}, min_time={min_time}"
        )
    clock = clock or Clock()
    timings = {}
    for name, call in callables.items():
        for _ in range(warmup):
            call()
        once = _time(call, 1, clock)
        timings[name] = Timing(name, max(1, round(min_time / max(once, 1e-9))))
    order = list(callables)
    for done in range(rounds):
        for name in order if done % 2 == 0 else reversed(order):
            timing = timings[name]
            timing.samples.append(_time(callables[name], timing.calls, clock) / timing.calls)
        if progress is not None:
            progress(done + 1, rounds)
    return timings


def _time(call: Callable[[], object], calls: int, clock: Clock) -> float:
    clock.start()
    for _ in range(calls):
        call()
    return clock.stop()
