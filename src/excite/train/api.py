"""`excite.fit`: train from Python, on a network and data that need no name."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from PIL.Image import Image
from torch import nn

from excite.card import CARD
from excite.common.options import Option
from excite.data import DataBundle
from excite.data.bundle import Images, chosen
from excite.data.preprocess import Preprocess, read_rgb
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.train.config import TrainConfig
from excite.train.fit import FitResult
from excite.train.fit import fit as fit_config


class LabelledImages(Protocol):
    """A map-style data set of (image, label): a PIL image, an array [h w c], a tensor [c h w], or a file."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:  # of the many kinds above
        """Return an image and its label."""


class MapImages:
    """A map-style data set, or some images of it, as a run reads them: RGB, with whole numbers as labels."""

    def __init__(self, dataset: LabelledImages, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        image, label = self.dataset[self.indices[index]]
        return read_rgb(image, self.name(index)), int(label)

    def name(self, index: int) -> str:
        """Say where image `index` comes from."""
        return f"{type(self.dataset).__name__}[{self.indices[index]}]"


def fit(
    model: str | nn.Module,
    data: str | DataBundle | tuple[LabelledImages, LabelledImages],
    recipe: str = "finetune",
    **options: Option,
) -> FitResult:
    """Train a classifier and return what came out; its directory can be tested, explained and exported.

    model: a name (eca_resnet50, timm/NAME, ...), or a network with as many outputs as the data have classes, which is
    trained in place. data: a spec (digits, imagefolder:PATH, ...), a DataBundle, or a pair of map-style data sets
    (training, validation) of (image, label). recipe: a recipe's name or file; options: those of `excite train` that
    differ from it, as epochs=4, out="runs/mine".
    Raises UsageError for what cannot work, ExciteError for bad data or a loss that is not finite.
    """
    bundle: DataBundle | None = None
    if isinstance(data, str):
        spec = data
    else:
        limits = (options.get("limit_train"), options.get("limit_val"))
        bundle = limited(data if isinstance(data, DataBundle) else bundle_of(*data), *limits)
        spec = bundle.spec
    config = TrainConfig.from_recipe(model if isinstance(model, str) else name_of(model), recipe, data=spec, **options)
    return fit_config(config, network=None if isinstance(model, str) else model, bundle=bundle)


def name_of(model: nn.Module) -> str:
    """Return the name in a network's card, else that of its class."""
    card = getattr(model, CARD, None)
    return card.name if isinstance(card, NetworkSpec) else type(model).__name__


def bundle_of(train: LabelledImages, val: LabelledImages) -> DataBundle:
    """Return two map-style data sets as a run's data.

    Classes are named by the training set's `classes` (as torchvision has them), else numbered up to the largest label.
    Images of up to 64 pixels keep their size, larger ones are cut to 224. Raises UsageError for an empty set.
    """
    first, second = (MapImages(dataset, range(len(dataset))) for dataset in (train, val))
    if not len(first) or not len(second):
        raise UsageError("a training and a validation set with at least one image each are needed")
    side = min(first[0][0].size)
    names = [str(name) for name in getattr(train, "classes", ())]
    if not names:
        labels = (int(dataset[i][1]) for dataset in (train, val) for i in range(len(dataset)))
        names = [str(i) for i in range(max(labels) + 1)]
    how = Preprocess.for_images_of(side) if side <= 64 else Preprocess.usual()
    return DataBundle(type(train).__name__, first, second, names, how.to_dict())


def limited(bundle: DataBundle, train: int | None, val: int | None) -> DataBundle:
    """Return a bundle with so many images at most, always the same ones."""

    def few(images: Images, limit: int | None) -> Images:
        return images if limit is None else MapImages(images, chosen(len(images), limit))

    return replace(bundle, train=few(bundle.train, train), val=few(bundle.val, val))
