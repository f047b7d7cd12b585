"""A data spec as a LightningDataModule."""

import time
from dataclasses import replace
from functools import cached_property
from typing import cast

import lightning as L
import torch
from torch import Tensor

from excite.common.holdout import read_cut
from excite.data import DataBundle, open_data
from excite.data.arrays import ArrayImages, cache
from excite.data.bundle import Images, Split, chosen
from excite.data.jpeg import decode
from excite.data.preprocess import RGB, Preprocess, read_as
from excite.data.resized import ResizedImages
from excite.data.sizes import LOOKED_AT, input_size
from excite.data.splits import labels_of
from excite.data.stream import StreamImages
from excite.engine.sampling import Readers
from excite.errors import ExciteError, UsageError
from excite.train.augment import train_transform
from excite.train.config import TrainConfig, is_small
from excite.train.loaders import (
    CachedEvalLoader,
    CachedTrainLoader,
    Decoded,
    Loader,
    WorkerLoader,
    check_bad,
    image_readers,
)

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
        if bundle is not None and read_cut(config.data)[1] != read_cut(bundle.spec)[1]:
            raise UsageError(
                "--val-fraction and --test-fraction divide what a spec names; these data have their splits"
            )
        self.bundle = bundle or _open(config)
        if self.bundle.num_classes < 2:
            raise UsageError(
                f"{self.bundle.spec} has one class ({self.bundle.class_names[0]}); training needs two or more"
            )
        self.preprocess, self.size_from = sized(self.bundle, config)
        if config.channels not in RGB:
            self.preprocess = with_statistics(self.preprocess, self.bundle.train, config.channels)
        self.train_source, self.val_source = (
            self.preprocess.read(images) for images in (self.bundle.train, self.bundle.val)
        )
        self.skipped: set[str] = set()
        self.loaders: list[Loader] = []
        size = self.preprocess.size
        self.stream = isinstance(self.bundle.train, StreamImages)
        self.cached = config.augment != "resized-crop" and size == self.preprocess.resize and self._fits(size)
        if self.cached:
            self.train_images, self.val_images = self._cache(self.train_source), self._cache(self.val_source)
        else:
            self._for_large_images()
        self.seconds = time.perf_counter() - start

    def _for_large_images(self) -> None:
        """Decode large JPEGs at a part of their size in training; keep resized images on disk where that is asked for.

        Validation images are decoded whole, as everywhere, so that scores do not depend on either.
        """
        side = self.preprocess.resize
        reading = self.preprocess.reading(least=2 * side)
        if self.config.decoder == "turbo":
            reading = replace(reading, decode=decode)
        self.train_source = read_as(self.train_source, reading)
        if not self.config.cache:
            return
        if self.stream:
            raise UsageError("--cache keeps images that are read again by their number; a stream has none")
        limit, count = int(self.config.cache * 2**30), len(self.train_source) + len(self.val_source)
        sources = []
        for images in (self.train_source, self.val_source):
            if not hasattr(images, "size"):
                raise UsageError("--cache is for data on disk; these images are given by a program")
            sources.append(ResizedImages(cast(Split, images), self.bundle.spec, side, limit * len(images) // count))
        self.train_source, self.val_source = sources

    def _fits(self, size: int) -> bool:
        return (
            not self.stream
            and size <= 64
            and 3 * size * size * (len(self.bundle.train) + len(self.bundle.val)) <= CACHE_BYTES
        )

    def _cache(self, images: Images) -> ArrayImages:
        size, channels = self.preprocess.size, self.preprocess.planes
        decoded, bad = cache(images, size, skip=self.config.skip_unreadable, channels=channels)
        self.skipped.update(bad)
        check_bad(self.skipped, self.config.max_bad)
        if not len(decoded):
            raise ExciteError(f"{self.config.data}: no image of a split can be read, the first is {bad[0]}")
        return decoded

    def train_dataloader(self) -> Loader:
        """Return the training batches."""
        rank, world = self._place
        if len(self.bundle.train) < world:
            raise UsageError(f"{len(self.bundle.train)} training images are too few for {world} processes")
        if self.cached and not self.config.randaugment:
            return self._remember(CachedTrainLoader(self.train_images, self.config, rank, world))
        if self.stream and self.config.balance == "sampler":
            raise UsageError("--balance sampler draws images by their number; a stream has none: take --balance loss")
        labels = self.labels if self.config.balance == "sampler" else None
        source = _counted(self.train_images if self.cached else self.train_source)
        return self._remember(WorkerLoader(self.readers, "train", source, self.config, rank, world, labels))

    def val_dataloader(self) -> Loader:
        """Return the validation batches; of several processes each sees its share, none twice."""
        rank, world = self._place
        if len(self.bundle.val) < world:
            raise UsageError(f"{len(self.bundle.val)} validation images are too few for {world} processes")
        if self.cached:
            return CachedEvalLoader(self.val_images, max(self.config.batch_size, 100), rank, world)
        return self._remember(WorkerLoader(self.readers, "val", _counted(self.val_source), self.config, rank, world))

    @property
    def _place(self) -> tuple[int, int]:
        """This process, of how many."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @cached_property
    def labels(self) -> Tensor:
        """The labels [n] of the training images."""
        images = self.train_images if self.cached else self.bundle.train
        return torch.tensor(labels_of(images, unreadable=-1), dtype=torch.long)

    @cached_property
    def readers(self) -> Readers[Decoded]:
        """The processes that read the images of both splits, where these are not cached."""
        transform = train_transform(self.config, self.preprocess.size)
        if self.cached:
            return image_readers(self.config, train=(self.train_images, transform))
        return image_readers(
            self.config, train=(self.train_source, transform), val=(self.val_source, self.preprocess.image)
        )

    def close(self) -> None:
        """End the reading processes, if some were started."""
        if "readers" in vars(self):
            self.readers.close()

    def _remember(self, loader: Loader) -> Loader:
        self.loaders.append(loader)
        return loader

    def unreadable(self) -> list[str]:
        """Return the names of the images that were passed over so far."""
        return sorted(self.skipped.union(*(loader.skipped for loader in self.loaders)))


def _counted(images: Images) -> int | StreamImages:
    return images if isinstance(images, StreamImages) else len(images)


def _open(config: TrainConfig) -> DataBundle:
    """Open the data of a run. Raises what `open_data` raises; of a resumed run the error says that it needs its own."""
    try:
        return open_data(config.data, limit_train=config.limit_train, limit_val=config.limit_val)
    except UsageError as error:
        if config.resume is None:
            raise
        raise UsageError(
            f"{config.resume} was trained on {config.data}: {error}; a resumed run goes on with the data it had: put "
            "them (or a link to them) there"
        ) from None


def with_statistics(preprocess: Preprocess, train: Images, channels: int) -> Preprocess:
    """Return the preparation for images of other channels, with mean and deviation of (some) training images.

    Raises UnreadableImageError for an image with another number of channels.
    """
    how = replace(preprocess, mean=(0.0,) * channels, std=(1.0,) * channels, channels=channels)
    images = how.read(train)
    pixels = [how.image(images[i][0], images.name(i)).flatten(1).double() / 255 for i in chosen(len(images), LOOKED_AT)]
    values = torch.cat(pixels, dim=1)
    mean, std = values.mean(1), values.std(1).clamp_min(1e-3)
    return replace(how, mean=tuple(round(v, 4) for v in mean.tolist()), std=tuple(round(v, 4) for v in std.tolist()))


def resolve_preprocess(bundle: DataBundle, config: TrainConfig) -> Preprocess:
    """Return the preprocessing with the configuration's size and resize; where they are 0, those of `input_size`.

    Raises ExciteError for a shorter side that is smaller than the size.
    """
    return sized(bundle, config)[0]


def sized(bundle: DataBundle, config: TrainConfig) -> tuple[Preprocess, str]:
    """Return what `resolve_preprocess` returns, and in words where the size is from."""
    preprocess = Preprocess.from_dict(bundle.default_preprocess)
    if config.window:
        preprocess = replace(preprocess, window=(config.window[0], config.window[1]))
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
