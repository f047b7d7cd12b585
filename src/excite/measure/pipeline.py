"""How many images a second the input pipeline of a training gives, with no network behind it."""

import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch

from excite.engine.sampling import worker_count
from excite.measure.bench.timing import median_interval
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData
from excite.train.loaders import Batch


@dataclass(frozen=True)
class InputSpeed:
    """What was measured. samples: images/s, one per round; processes: that read; opened: seconds before the first."""

    data: str
    size: int
    augment: str
    processes: int
    cached: bool
    opened: float
    samples: list[float]

    @property
    def median(self) -> float:
        """Images/s."""
        return statistics.median(self.samples)

    def to_dict(self) -> dict[str, object]:
        """Return all numbers; per_core: images/s per reading process, interval: of the median."""
        low, high, coverage = median_interval(self.samples)
        return {
            "data": self.data,
            "size": self.size,
            "augment": self.augment,
            "processes": self.processes,
            "cached": self.cached,
            "opened_s": round(self.opened, 3),
            "images_per_s": round(self.median, 2),
            "interval": [round(low, 2), round(high, 2)],
            "coverage": round(coverage, 4),
            "per_core": round(self.median / self.processes, 2),
            "samples": [round(sample, 2) for sample in self.samples],
        }

    def in_words(self) -> str:
        """Return the result in two lines."""
        low, high, _ = median_interval(self.samples)
        how = "small images, decoded once into memory" if self.cached else f"decoded by {self.processes} process(es)"
        return (
            f"{self.data}: {self.median:,.0f} images/s [{low:,.0f}, {high:,.0f}], "
            f"{self.median / self.processes:,.0f} per core\n"
            f"{self.size} x {self.size} pixels, augment {self.augment}, {how}; opened in {self.opened:.1f} s"
        )


def input_speed(
    config: TrainConfig, *, rounds: int = 15, seconds: float = 0.5, progress: Callable[[int, int], None] | None = None
) -> InputSpeed:
    """Measure the training batches of a configuration: reading, decoding, augmenting and collating.

    rounds: samples, each of so many seconds at least; progress: called with (rounds done, rounds). With no workers it
    runs in this process, on one thread. Raises what opening and reading the data raise.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = ImageData(replace(config, quiet=True))
        batches = _endless(data)
        next(batches)
        samples: list[float] = []
        for done in range(rounds):
            count, begun = 0, time.perf_counter()
            while (passed := time.perf_counter() - begun) < seconds or not count:
                count += len(next(batches)[1])
            samples.append(count / passed)
            if progress is not None:
                progress(done + 1, rounds)
        batches.close()
    finally:
        torch.set_num_threads(threads)
    processes = 1 if data.cached else max(worker_count(config.workers), 1)
    size = data.preprocess.size
    return InputSpeed(config.data, size, config.augment, processes, data.cached, data.seconds, samples)


def _endless(data: ImageData) -> Generator[Batch, None, None]:
    loader, epoch = data.train_dataloader(), 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1
