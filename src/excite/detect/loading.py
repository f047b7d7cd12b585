"""Batches for a detector, in an order and with an augmentation that depend on (seed, epoch, index) alone."""

import torch
from torch.utils.data import DataLoader, Dataset

from excite.detect.config import DetectConfig
from excite.detect.data.base import DetectionDataset, Item
from excite.detect.data.transforms import Transform, collate, evaluation_transform, training_transform
from excite.engine.sampling import EpochSampler, Key, worker_count
from excite.engine.seeds import derive
from excite.errors import ExciteError


class Augmented(Dataset[Item]):
    """A data set behind a random transform, with the random numbers of (seed, epoch, index)."""

    def __init__(self, dataset: DetectionDataset, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        try:
            image, target = self.dataset[index]
        except ExciteError as error:
            raise ExciteError(f"{error}; repair or remove it, or go on with --skip-unreadable") from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("augmentation", self.seed, epoch, index=index))
            return self.transform(image, target)


class Evaluated(Dataset[Item]):
    """A data set as a detector sees it in evaluation."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset, self.transform = dataset, evaluation_transform()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        return self.transform(*self.dataset[index])


def train_loader(dataset: DetectionDataset, config: DetectConfig, rank: int = 0, world: int = 1) -> DataLoader[Item]:
    """Return the training batches of one process; an incomplete last batch is dropped unless it is the only one."""
    transform = training_transform(flip=config.flip, vertical_flip=config.vertical_flip, colour=config.colour)
    order = EpochSampler(len(dataset), config.seed, rank, world)
    return DataLoader(
        Augmented(dataset, transform, config.seed),
        batch_size=config.batch_size,
        sampler=order,
        drop_last=len(order) >= config.batch_size,
        collate_fn=collate,
        num_workers=worker_count(config.workers),
        persistent_workers=worker_count(config.workers) > 0,
        # Starting to iterate draws a number; from the global generator it would shift what the detector draws.
        generator=torch.Generator(),
    )


def eval_loader(
    dataset: DetectionDataset, *, batch_size: int = 8, workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[Item]:
    """Return every `world`-th image from number `rank` on, in order."""
    return DataLoader(
        Evaluated(dataset),
        batch_size=batch_size,
        sampler=range(rank, len(dataset), world),
        collate_fn=collate,
        num_workers=worker_count(workers),
    )
