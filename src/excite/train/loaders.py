"""Batches of (uint8 images [n 3 s s], labels [n]), and the time spent waiting for them.

Small images are decoded once and augmented a batch at a time; large ones are decoded by worker processes. Both draw
order and augmentation from (seed, epoch, index).
"""

import multiprocessing
import multiprocessing.context
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from excite.data.arrays import ArrayImages
from excite.data.bundle import Images
from excite.data.mapped import MapImages
from excite.data.preprocess import Reading, UnreadableImageError
from excite.data.stream import Row, StreamImages
from excite.engine.sampling import EpochSampler, Readers, SplitLoader, ahead, worker_count
from excite.engine.seeds import balanced_order, derive, epoch_order, generator, seeded
from excite.errors import ExciteError
from excite.train.augment import Transform, crop_and_flip
from excite.train.config import TrainConfig

# Any: an image's number, or the row of a stream.

AHEAD = 256  # rows of a stream that wait, still encoded
Batch = tuple[Tensor, Tensor]


class Loader(ABC):
    """Iterates over an epoch's batches. `waited` adds up the seconds that the consumer waited for them."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.epoch = 0
        self.first = 0  # batches of the epoch that were trained already: a run goes on inside it
        self.waited = 0.0
        self.skipped: set[str] = set()

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentation come next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        source = iter(self._epoch())
        while True:
            start = time.perf_counter()
            batch = next(source, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    @abstractmethod
    def _epoch(self) -> Iterator[Batch]:
        """Yield the batches of `self.epoch`, from `self.first` on."""


class CachedTrainLoader(Loader):
    """Training batches from decoded images; crop and flip are vectorised over the batch."""

    def __init__(self, images: ArrayImages, config: TrainConfig, rank: int = 0, world: int = 1) -> None:
        self.images, self.config, self.rank, self.world = images, config, rank, world
        super().__init__(count_batches(len(images) // world, config))

    def _epoch(self) -> Iterator[Batch]:
        config, epoch = self.config, self.epoch
        if config.balance == "sampler":
            order = balanced_order(self.images.labels, config.seed, epoch, self.rank, self.world)
        else:
            order = epoch_order(len(self.images), config.seed, epoch, self.rank, self.world)
        for index, rows in list(enumerate(order.split(config.own_batch)[: self.batches]))[self.first :]:
            chance = generator("augmentation", config.seed, epoch, index=index)
            padding = config.padding if config.augment == "crop" else 0
            images = crop_and_flip(self.images.images[rows], padding, config.flip, chance, self.rank, self.world)
            yield images, self.images.labels[rows]


class CachedEvalLoader(Loader):
    """Decoded images in their order; of `world` processes each takes its share, none twice."""

    def __init__(self, images: ArrayImages, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.images, self.labels = images.images[rank::world], images.labels[rank::world]
        self.batch_size = batch_size
        super().__init__(-(-len(self.images) // batch_size))

    def _epoch(self) -> Iterator[Batch]:
        yield from zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)


Decoded = tuple[Tensor, Tensor, "list[Unreadable]"]  # a batch, and what is missing in it


def image_readers(config: TrainConfig, **splits: tuple[Images, Transform]) -> Readers[Decoded]:
    """Return the processes that decode and augment the images of all splits (the calling one if `workers` is 0)."""
    workers = worker_count(config.workers)
    datasets = {
        name: _Prepared(_listed(images), transform, config.seed) for name, (images, transform) in splits.items()
    }
    ours = all(type(images).__module__.startswith("excite.") for images, _ in splits.values())
    ours = ours and not any(isinstance(images, MapImages) for images, _ in splits.values())
    return Readers(datasets, _collate, workers, _context(ours) if workers else None)


class StreamOrder:
    """Yields (epoch, row) of a stream: every process reads all of it, still encoded, and takes its share.

    So a step has the same images however many processes share it, and a run that goes on inside an epoch finds its
    place. seed: of the order, None for the stream's own; rank, world: this process, of how many.
    """

    def __init__(self, images: StreamImages, seed: int | None, rank: int = 0, world: int = 1) -> None:
        self.images, self.seed, self.rank, self.world = images, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        n = len(self.images)
        return n // self.world if self.seed is not None else len(range(self.rank, n, self.world))

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        seed = None if self.seed is None else derive("order", self.seed, self.epoch)
        for row in ahead(self.images.rows(seed), AHEAD):
            if row.place % self.world == self.rank:
                yield self.epoch, row


class WorkerLoader(Loader):
    """Batches of a split, decoded and augmented one by one; those of "train" are shuffled.

    n: its images, or the stream that they come from; labels: draw all classes equally often.
    """

    def __init__(
        self,
        readers: Readers[Decoded],
        split: str,
        n: int | StreamImages,
        config: TrainConfig,
        rank: int = 0,
        world: int = 1,
        labels: Tensor | None = None,
    ) -> None:
        train = split == "train"
        self.config = config
        seed = config.seed if train else None
        self.order: EpochSampler | StreamOrder
        if isinstance(n, StreamImages):
            self.order = StreamOrder(n, seed, rank, world)
        else:
            self.order = EpochSampler(n, seed, rank, world, labels)
        drop_last = train and len(self.order) >= config.own_batch
        self.inner = SplitLoader(readers, split, self.order, config.own_batch, drop_last=drop_last)
        self.together = train and world > 1
        super().__init__(count_batches(len(self.order), config) if train else len(self.inner))

    def _epoch(self) -> Iterator[Batch]:
        self.order.set_epoch(self.epoch)
        self.inner.first = self.first
        for index, (images, labels, bad) in enumerate(self.inner, start=self.first):
            if index == self.batches:
                return
            for name, reason in bad:
                if not self.config.skip_unreadable:
                    raise UnreadableImageError(name, reason)
                self.skipped.add(name)
                check_bad(self.skipped, self.config.max_bad)
            if not len(labels) and self.together:
                raise ExciteError(f"none of the {len(bad)} images of a step can be read, the first is {bad[0].name}")
            yield images, labels  # perhaps none: an epoch of fewer batches than it has would end without validation


def _context(ours: bool) -> multiprocessing.context.BaseContext:
    """Workers come from a server that has imported what they need; a plain fork would copy locks held by threads.

    ours: False for a data set of the caller's own. The server may have no way to import its class (of a notebook), and
    it would run a caller's script once more, which need not have `if __name__ == "__main__"`. There workers are forked,
    as torch does by itself.
    """
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "").suffix == ".py"
    if not ours or (script and getattr(sys.modules["__main__"], "__spec__", None) is None):
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["excite.train.loaders"])
    return context


class Unreadable(NamedTuple):
    """What stands for an image that cannot be read: errors lose their kind in a worker."""

    name: str
    reason: str


class _Rows:
    """Decodes rows of a stream, which come to it with their bytes."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def __getitem__(self, row: Row) -> tuple[Image.Image | Tensor, int]:
        return row.read(self.reading)


def _listed(images: Images) -> Images | _Rows:
    return _Rows(images.reading) if isinstance(images, StreamImages) else images


class _Prepared(Dataset["tuple[Tensor, int] | Unreadable"]):
    """Transformed images and their labels."""

    def __init__(self, images: Images | _Rows, transform: Transform, seed: int) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __getitem__(self, key: tuple[int, Any]) -> tuple[Tensor, int] | Unreadable:
        epoch, item = key
        index = item.place if isinstance(item, Row) else item
        try:
            image, label = self.images[item]
        except UnreadableImageError as error:
            return Unreadable(error.name, error.reason)
        with seeded(derive("augmentation", self.seed, epoch, index=index)):
            return self.transform(image), label


def _collate(items: list[tuple[Tensor, int] | Unreadable]) -> tuple[Tensor, Tensor, list[Unreadable]]:
    readable = [item for item in items if not isinstance(item, Unreadable)]
    images = torch.stack([image for image, _ in readable]) if readable else torch.empty(0, dtype=torch.uint8)
    labels = torch.tensor([label for _, label in readable], dtype=torch.long)
    return images, labels, [item for item in items if isinstance(item, Unreadable)]


def check_bad(names: Collection[str], most: int | None) -> None:
    """Raise ExciteError where more images than `most` could not be read."""
    if most is not None and len(names) > most:
        listed = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise ExciteError(f"{len(names)} images cannot be read, and --max-bad is {most}: {listed}")


def count_batches(n: int, config: TrainConfig) -> int:
    """Return the batches of an epoch of a process's `n` images; an incomplete last one counts if it is the only one."""
    return max(n // config.own_batch, 1)
