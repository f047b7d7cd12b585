"""Which images come when, and how many processes read them."""

import os
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from excite.engine.seeds import epoch_order

Key = tuple[int, int]


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index), so that workers which outlive an epoch still know which one it is.

    seed: of the order, None for the images' own; rank, world: this process, of how many that share the images.
    """

    def __init__(self, n: int, seed: int | None, rank: int = 0, world: int = 1) -> None:
        self.n, self.seed, self.rank, self.world = n, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // self.world

    def __iter__(self) -> Iterator[Key]:
        if self.seed is None:
            order = torch.arange(self.n)
        else:
            order = epoch_order(self.n, self.seed, self.epoch, self.rank, self.world)
        return iter([(self.epoch, i) for i in order.tolist()])


def worker_count(workers: int) -> int:
    """Return the number of reading processes: -1 is one per processor, less one, and at least one."""
    return workers if workers >= 0 else max(len(os.sched_getaffinity(0)) - 1, 1)
