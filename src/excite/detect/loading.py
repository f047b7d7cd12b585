"""Batches for a detector, in an order and with an augmentation that depend on (seed, epoch, index) alone."""

from torch.utils.data import Dataset

from excite.detect.config import DetectConfig
from excite.detect.data.base import DetectionDataset, Item
from excite.detect.data.transforms import Transform, collate, evaluation_transform, training_transform
from excite.detect.module import Batch
from excite.engine.sampling import EpochSampler, Key, Readers, SplitLoader, worker_count
from excite.engine.seeds import derive, seeded
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
        with seeded(derive("augmentation", self.seed, epoch, index=index)):
            return self.transform(image, target)


class Evaluated(Dataset[Item]):
    """A data set as a detector sees it in evaluation."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset, self.transform = dataset, evaluation_transform()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        return self.transform(*self.dataset[index])


def run_loaders(
    train: DetectionDataset, val: DetectionDataset | None, config: DetectConfig, rank: int = 0, world: int = 1
) -> tuple[SplitLoader[Batch], SplitLoader[Batch] | None]:
    """Return the batches of one of `world` processes for training and, in order, validation.

    An incomplete last batch of training is dropped unless it is the only one.
    """
    transform = training_transform(flip=config.flip, vertical_flip=config.vertical_flip, colour=config.colour)
    splits: dict[str, Dataset[Item]] = {"train": Augmented(train, transform, config.seed)}
    if val is not None:
        splits["val"] = Evaluated(val)
    readers = Readers(splits, collate, worker_count(config.workers))
    order, size = EpochSampler(len(train), config.seed, rank, world), config.own_batch
    loader = SplitLoader(readers, "train", order, size, drop_last=len(order) >= size)
    return loader, None if val is None else SplitLoader(readers, "val", range(rank, len(val), world), size)


def eval_loader(dataset: DetectionDataset, *, batch_size: int = 8, workers: int = 0) -> SplitLoader[Batch]:
    """Return all images in order."""
    readers = Readers({"all": Evaluated(dataset)}, collate, worker_count(workers))
    return SplitLoader(readers, "all", range(len(dataset)), batch_size)
