"""A data spec as a LightningDataModule."""

import time
from dataclasses import replace
from functools import cached_property

import lightning as L
from torch import Tensor

from excite.data import DataBundle, open_data
from excite.data.arrays import ArrayImages, cache
from excite.data.bundle import Images
from excite.data.preprocess import Preprocess
from excite.data.sizes import input_size
from excite.engine.sampling import Readers
from excite.errors import ExciteError, UsageError
from excite.train.augment import train_transform
from excite.train.config import TrainConfig, is_small
from excite.train.loaders import CachedEvalLoader, CachedTrainLoader, Decoded, Loader, WorkerLoader, image_readers
from excite.train.losses import labels_of

CACHE_BYTES = 2 * 2**30


class ImageData(L.LightningDataModule):
    """The two splits of the data as loaders; small images are cached in memory.

    bundle: the data, where `config.data` names none that could be opened. Raises what `open_data` raises, and
    ExciteError if no readable image is left.
    """

    def __init__(self, config: TrainConfig, bundle: DataBundle | None = None) -> None:
        super().__init__()
        start = time.perf_counter()
        self.config = config
        self.bundle = bundle or open_data(config.data, limit_train=config.limit_train, limit_val=config.limit_val)
        if self.bundle.num_classes < 2:
            raise UsageError(
                f"{self.bundle.spec} has one class ({self.bundle.class_names[0]}); training needs two or more"
            )
        self.preprocess, self.size_from = sized(self.bundle, config)
        self.skipped: set[str] = set()
        self.loaders: list[Loader] = []
        size = self.preprocess.size
        self.cached = config.augment != "resized-crop" and size == self.preprocess.resize and self._fits(size)
        if self.cached:
            self.train_images, self.val_images = self._cache(self.bundle.train), self._cache(self.bundle.val)
        self.seconds = time.perf_counter() - start

    def _fits(self, size: int) -> bool:
        return size <= 64 and 3 * size * size * (len(self.bundle.train) + len(self.bundle.val)) <= CACHE_BYTES

    def _cache(self, images: Images) -> ArrayImages:
        decoded, bad = cache(images, self.preprocess.size, skip=self.config.skip_unreadable)
        self.skipped.update(bad)
        if not len(decoded):
            raise ExciteError(f"{self.config.data}: no image of a split can be read, the first is {bad[0]}")
        return decoded

    def train_dataloader(self) -> Loader:
        """Return the training batches."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.cached and not self.config.randaugment:
            return self._remember(CachedTrainLoader(self.train_images, self.config, rank, world))
        n = len(self.train_images if self.cached else self.bundle.train)
        labels = self.labels if self.config.balance == "sampler" else None
        return self._remember(WorkerLoader(self.readers, "train", n, self.config, rank, world, labels))

    def val_dataloader(self) -> Loader:
        """Return the validation batches; every process sees all of them."""
        if self.cached:
            return CachedEvalLoader(self.val_images, max(self.config.batch_size, 100))
        return self._remember(WorkerLoader(self.readers, "val", len(self.bundle.val), self.config))

    @cached_property
    def labels(self) -> Tensor:
        """The labels [n] of the training images."""
        return labels_of(self.train_images if self.cached else self.bundle.train)

    @cached_property
    def readers(self) -> Readers[Decoded]:
        """The processes that read the images of both splits, where these are not cached."""
        transform = train_transform(self.config, self.preprocess.size)
        if self.cached:
            return image_readers(self.config, train=(self.train_images, transform))
        return image_readers(
            self.config, train=(self.bundle.train, transform), val=(self.bundle.val, self.preprocess.image)
        )

    def _remember(self, loader: Loader) -> Loader:
        self.loaders.append(loader)
        return loader

    def unreadable(self) -> list[str]:
        """Return the names of the images that were passed over so far."""
        return sorted(self.skipped.union(*(loader.skipped for loader in self.loaders)))


def resolve_preprocess(bundle: DataBundle, config: TrainConfig) -> Preprocess:
    """Return the preprocessing with the configuration's size and resize; where they are 0, those of `input_size`.

    Raises ExciteError for a shorter side that is smaller than the size.
    """
    return sized(bundle, config)[0]


def sized(bundle: DataBundle, config: TrainConfig) -> tuple[Preprocess, str]:
    """Return what `resolve_preprocess` returns, and in words where the size is from."""
    preprocess = Preprocess.from_dict(bundle.default_preprocess)
    why = "--size"
    if config.size:
        preprocess = preprocess.at(config.size)
    else:
        preprocess, why = input_size(preprocess, is_small(config.model))
    if config.resize:
        preprocess = replace(preprocess, resize=config.resize)
    if preprocess.resize < preprocess.size:
        raise ExciteError(f"--resize {preprocess.resize} is smaller than the image size {preprocess.size}")
    return preprocess, why
