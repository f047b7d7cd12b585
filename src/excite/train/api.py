"""`excite.fit`: train from Python, on a network and data that need no name."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from lightning.pytorch.callbacks import Callback
from PIL.Image import Image
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from excite.card import CARD
from excite.common.checks import shown
from excite.common.options import Option
from excite.data import DataBundle
from excite.data.bundle import Images, chosen
from excite.data.preprocess import read_rgb
from excite.data.sizes import usual_for
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.train.config import TrainConfig
from excite.train.fit import FitResult
from excite.train.fit import fit as fit_config
from excite.train.losses import Loss

IMAGE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "fine_label")
BUILT_IN = ("loss", "top1", "top5", "macro_f1", "balanced_accuracy")


class LabelledImages(Protocol):
    """A map-style data set of (image, label): a PIL image, an array [h w c], a tensor [c h w], or a file."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:  # of the many kinds above
        """Return an image and its label."""


class MapImages:
    """A map-style data set, or some images of it, as a run reads them: RGB, with whole numbers as labels."""

    def __init__(self, dataset: LabelledImages, indices: Sequence[int], classes: int | None = None) -> None:
        self.dataset, self.indices, self.classes = dataset, indices, classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        image, label = self._pair(index)
        number = whole(label, self.name(index))
        if self.classes is not None and number >= self.classes:
            raise UsageError(f"{self.name(index)} has the label {number}; there are {self.classes} classes, from 0")
        return read_rgb(image, self.name(index)), number

    def _pair(self, index: int) -> tuple[Any, Any]:  # of the many kinds above
        """Return an image and its label, as the data set has them."""
        item = self.dataset[self.indices[index]]
        if isinstance(item, Mapping):
            pair = [next((item[key] for key in keys if key in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS)]
            if any(part is None for part in pair):
                needed = f"an image ({', '.join(IMAGE_KEYS)}) and a label ({', '.join(LABEL_KEYS)}) are needed"
                raise UsageError(f"{self.name(index)} has the keys {', '.join(map(str, item))}; {needed}")
            return pair[0], pair[1]
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
            raise UsageError(f"{self.name(index)} gives {type(item).__name__}; a pair (image, label) is needed")
        return item[0], item[1]

    @cached_property
    def labels(self) -> list[int]:
        """The labels, in order: the data set's own list of them where it has one."""
        for name in ("targets", "labels"):
            known = getattr(self.dataset, name, None)
            if known is not None and not callable(known) and len(known) == len(self.dataset):
                return [int(known[i]) for i in self.indices]
        return [whole(self._pair(i)[1], self.name(i)) for i in range(len(self))]

    def name(self, index: int) -> str:
        """Say where image `index` comes from."""
        return f"{type(self.dataset).__name__}[{self.indices[index]}]"


def whole(label: object, where: str) -> int:
    """Return a label as a number. Raises UsageError for anything but a whole number from 0."""
    try:
        number = operator.index(label.item() if hasattr(label, "item") else label)  # type: ignore[arg-type]  # tried
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{where} has the label {shown(label)}; a whole number is needed, counted from 0") from None
    if number < 0:
        raise UsageError(f"{where} has the label {number}; classes are counted from 0")
    return number


def fit(
    model: str | nn.Module,
    data: str | DataBundle | tuple[LabelledImages, LabelledImages],
    recipe: str = "finetune",
    *,
    loss: str | Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Option,
) -> FitResult:
    """Train a classifier and return what came out; its directory can be tested, explained and exported.

    model: a name (eca_resnet50, timm/NAME, ...), or a network with as many outputs as the data have classes, which is
    trained in place. data: a spec (digits, imagefolder:PATH, ...), a DataBundle, or a pair of map-style data sets
    (training, validation) of (image, label), also as {"image": ..., "label": ...}. recipe: a recipe's name or file;
    options: those of `excite train` that differ from it, as epochs=4, out="runs/mine".
    loss: the word that `--loss` takes, or a function of logits [n c] and labels [n] (or shares [n c], where images are
    mixed) that gives one number; it is used in validation, too. metrics: torchmetrics of logits and labels; each fills
    a column val_NAME. callbacks: Lightning's.
    Raises UsageError for what cannot work, ExciteError for bad data or a loss that is not finite.
    """
    check_parts(loss, metrics or {}, callbacks)
    if loss is not None:
        options["loss"] = loss if isinstance(loss, str) else "own"
    bundle: DataBundle | None = None
    if isinstance(data, str):
        spec = data
    else:
        limits = (options.get("limit_train"), options.get("limit_val"))
        bundle = limited(data if isinstance(data, DataBundle) else bundle_of(*pair_of(data)), *limits)
        spec = bundle.spec
    config = TrainConfig.from_recipe(model if isinstance(model, str) else name_of(model), recipe, data=spec, **options)
    return fit_config(
        config,
        network=None if isinstance(model, str) else model,
        bundle=bundle,
        loss=None if isinstance(loss, str) else loss,
        metrics=metrics or {},
        callbacks=callbacks,
    )


def check_parts(loss: object, metrics: Mapping[str, object], callbacks: Sequence[object]) -> None:
    """Raise UsageError for parts of a fit that are not what they must be."""
    if loss is not None and not isinstance(loss, str) and not callable(loss):
        raise UsageError(f"loss is {type(loss).__name__}; a function of logits and labels is needed, or a word")
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise UsageError("the loss has parameters of its own, which nothing would train; make them part of the network")
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise UsageError(f"metric {name} is {type(metric).__name__}; a torchmetrics.Metric is needed")
        if not name.isidentifier() or name in BUILT_IN:
            raise UsageError(f"a metric cannot be called {name!r}; take another word (not {', '.join(BUILT_IN)})")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UsageError(f"callback {type(callback).__name__} is none of Lightning's (lightning.Callback)")


def pair_of(data: object) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and the validation set. Raises UsageError for anything but a pair of map-style data sets."""
    for part in data if isinstance(data, tuple | list) else [data]:
        if isinstance(part, DataLoader):
            raise UsageError("data is a DataLoader; give its data set (LOADER.dataset), the run makes its own batches")
    if not isinstance(data, tuple | list) or len(data) != 2:
        what = f"{len(data)} data sets" if isinstance(data, tuple | list) else type(data).__name__
        raise UsageError(f"data is {what}; a spec, a DataBundle, or a pair (training set, validation set) is needed")
    for part, name in zip(data, ("training", "validation"), strict=True):
        if not (hasattr(part, "__getitem__") and hasattr(part, "__len__")):
            raise UsageError(
                f"the {name} set ({type(part).__name__}) has no length or no [index]: it is no map-style data set"
            )
    return data[0], data[1]


def name_of(model: nn.Module) -> str:
    """Return the name in a network's card, else that of its class."""
    card = getattr(model, CARD, None)
    return card.name if isinstance(card, NetworkSpec) else type(model).__name__


def bundle_of(train: LabelledImages, val: LabelledImages) -> DataBundle:
    """Return two map-style data sets as a run's data.

    Classes are named by the training set's `classes` (as torchvision has them), else numbered up to the largest label.
    Images with a median side of up to 64 pixels keep it, larger ones are cut to 224. Raises UsageError for empty sets.
    """
    first, second = (MapImages(dataset, range(len(dataset))) for dataset in (train, val))
    if not len(first) or not len(second):
        raise UsageError("a training and a validation set with at least one image each are needed")
    names = [str(name) for name in getattr(train, "classes", ())]
    if not names:
        names = [str(i) for i in range(max(*first.labels, *second.labels) + 1)]
    first.classes = second.classes = len(names)
    return DataBundle(type(train).__name__, first, second, names, usual_for(first).to_dict())


def limited(bundle: DataBundle, train: int | None, val: int | None) -> DataBundle:
    """Return a bundle with so many images at most, always the same ones."""

    def few(images: Images, limit: int | None) -> Images:
        return images if limit is None else MapImages(images, chosen(len(images), limit))

    return replace(bundle, train=few(bundle.train, train), val=few(bundle.val, val))
