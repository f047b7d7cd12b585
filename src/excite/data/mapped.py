"""Data that a program gives: map-style data sets of (image, label), one of them or one for each split."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from excite.common.checks import shown
from excite.common.holdout import Cut, read_cut
from excite.data.bundle import DataBundle, Images, chosen
from excite.data.folder import SPLITS
from excite.data.preprocess import Reading, UnreadableImageError
from excite.data.sizes import usual_for
from excite.data.splits import NO_CUT, Source, SplitName, arrange
from excite.errors import ExciteError, UsageError

# Any: items are of many kinds.

IMAGE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "fine_label")
PARTS: tuple[SplitName, ...] = ("train", "val", "test")
NEEDED = "a data set of (image, label), two (training, validation) or three of them (and test), or a DataBundle"


class LabelledImages(Protocol):
    """A map-style data set of (image, label): a PIL image, an array [h w c], a tensor [c h w], or a file."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Return an image and its label."""


class MapImages:
    """A map-style data set, or some images of it, as a run reads them: RGB, with whole numbers as labels.

    labels: where they are known already; those of images that cannot be read are -1.
    """

    reading = Reading()

    def __init__(
        self,
        dataset: LabelledImages,
        indices: Sequence[int],
        classes: int | None = None,
        labels: list[int] | None = None,
    ) -> None:
        self.dataset, self.indices, self.classes = dataset, indices, classes
        if labels is not None:
            self.labels = labels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image | Tensor, int]:
        image, label = self._pair(index)
        return self.reading(image, self.name(index)), self._number(label, index)

    def _number(self, label: object, index: int) -> int:
        number = whole(label, self.name(index))
        if self.classes is not None and number >= self.classes:
            raise UsageError(f"{self.name(index)} has the label {number}; there are {self.classes} classes, from 0")
        return number

    def _pair(self, index: int) -> tuple[Any, Any]:
        """Return an image and its label, as the data set has them."""
        try:
            item = self.dataset[self.indices[index]]
        except Exception as error:  # whatever somebody's program raises
            reason = str(error).splitlines()[0] if str(error) else "it says nothing more"
            raise UnreadableImageError(self.name(index), f"{type(error).__name__}: {reason}") from error
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
        known = _listed(self.dataset)
        if known is not None and hasattr(self.dataset, "take"):  # ours, where -1 is none
            return [int(known[i]) for i in self.indices]
        if known is not None:
            return [self._number(known[i], index) for index, i in enumerate(self.indices)]
        numbers = []
        for index in range(len(self)):
            try:
                numbers.append(self._number(self._pair(index)[1], index))
            except UnreadableImageError:
                numbers.append(-1)
        return numbers

    def name(self, index: int) -> str:
        """Say where image `index` comes from."""
        return f"{type(self.dataset).__name__}[{self.indices[index]}]"

    def take(self, indices: Sequence[int]) -> "MapImages":
        """Return these images alone."""
        known = [self.labels[i] for i in indices] if "labels" in self.__dict__ else None
        return MapImages(self.dataset, [self.indices[i] for i in indices], self.classes, known)


def whole(label: object, where: str) -> int:
    """Return a label as a number. Raises UsageError for anything but a whole number from 0."""
    try:
        number = operator.index(label.item() if hasattr(label, "item") else label)  # type: ignore[arg-type]  # tried
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{where} has the label {shown(label)}; a whole number is needed, counted from 0") from None
    if number < 0:
        raise UsageError(f"{where} has the label {number}; classes are counted from 0")
    return number


def bundle_of(
    data: object,
    spec: str,
    cut: Cut = NO_CUT,
    *,
    limit_train: int | None = None,
    limit_val: int | None = None,
    limit_test: int | None = None,
) -> DataBundle:
    """Return what a program gives as a run's data: a DataBundle, data sets by split, or one that is divided here.

    Of one data set a fifth of each class is held out, or the shares of `cut`. Classes are named by the training set's
    `classes` (as torchvision has them) or its ClassLabel, else numbered up to the largest label. Images with a median
    side of up to 64 pixels keep it, larger ones are cut to 224. Raises UsageError for what is no data.
    """
    if isinstance(data, DataBundle):
        if read_cut(data.spec)[1] == cut:  # it was divided so
            cut = NO_CUT
        if cut != NO_CUT:
            raise UsageError(
                "--val-fraction and --test-fraction divide what a spec names; these data have their splits"
            )
        separate = data.separate_test
        return replace(
            data,
            train=_few(data.train, limit_train),
            val=_few(data.val, limit_val),
            separate_test=None if separate is None else _few(separate, limit_test),
        )
    datasets = splits_of(data)
    splits = {split: MapImages(dataset, range(len(dataset))) for split, dataset in datasets.items()}
    empty = [split for split, images in splits.items() if not len(images)]
    if empty:
        raise UsageError(f"the {empty[0]} set is empty; at least one image each is needed")
    names = class_names(datasets["train"])
    if not names:
        most = max(max(images.labels) for images in splits.values())
        if most < 0:
            raise ExciteError(f"no image of {splits['train'].name(0)} and the rest can be read")
        names = [str(i) for i in range(most + 1)]
    for images in splits.values():
        images.classes = len(names)
    limits = {"limit_train": limit_train, "limit_val": limit_val, "limit_test": limit_test}
    return arrange(spec, Source(splits, names, usual_for), cut, **limits)


def kind_of(data: object) -> str:
    """Return the class of the training images, as a name for the data. Raises UsageError for what is no data."""
    return type(_inner(splits_of(data)["train"])[0]).__name__


def _few(images: Images, limit: int | None) -> Images:
    indices = chosen(len(images), limit)
    if len(indices) == len(images):
        return images
    return images.take(indices) if hasattr(images, "take") else MapImages(images, indices)


def splits_of(data: object) -> dict[SplitName, LabelledImages]:
    """Return data sets by their split; one alone is `train`. Raises UsageError for anything else."""
    parts: dict[SplitName, Any]
    if isinstance(data, Mapping):
        parts = dict(_named(data))
    elif _is_several(data):
        assert isinstance(data, tuple | list)
        if not 1 <= len(data) <= 3:
            raise UsageError(f"data is {len(data)} data sets; {NEEDED} is needed")
        parts = dict(zip(PARTS, data, strict=False))
    else:
        parts = {"train": data}
    for split, part in parts.items():
        which = "data" if len(parts) == 1 else f"the {split} set"
        if isinstance(part, DataLoader):
            raise UsageError(
                f"{which} is a DataLoader; give its data set (LOADER.dataset), the run makes its own batches"
            )
        if isinstance(part, IterableDataset) or not (hasattr(part, "__getitem__") and hasattr(part, "__len__")):
            kind = type(part).__name__
            raise UsageError(
                f"{which} ({kind}) has no length or no [index]: it is no map-style data set; {NEEDED} is needed"
            )
        if isinstance(part, str | bytes | Mapping | np.ndarray | Tensor):
            raise UsageError(f"{which} is {type(part).__name__}; {NEEDED} is needed")
    return parts


def _named(data: Mapping[Any, Any]) -> Iterator[tuple[SplitName, Any]]:
    words = {word: split for split, words in SPLITS.items() for word in words}
    for name, part in data.items():
        if str(name).lower() not in words:
            raise UsageError(f"data has the key {shown(name)}; data sets go by train, val and test")
        yield words[str(name).lower()], part
    if not any(words[str(name).lower()] == "train" for name in data):
        raise UsageError("data has no train among its data sets")


def _is_several(data: object) -> bool:
    """True for a tuple or a list of data sets; a list of (image, label) is one data set."""
    if not isinstance(data, tuple | list) or not data:
        return isinstance(data, tuple | list)
    if isinstance(data[0], Mapping):
        return False
    return not (isinstance(data[0], tuple | list) and len(data[0]) == 2 and _is_label(data[0][1]))


def _is_label(value: object) -> bool:
    return isinstance(value, str | int | float) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0)


def _inner(dataset: object) -> tuple[Any, Sequence[int] | None]:
    """Return the data set that a `torch.utils.data.Subset` (of another one, ...) takes images of, and which."""
    indices: Sequence[int] | None = None
    while hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        own: Sequence[int] = dataset.indices
        indices = own if indices is None else [own[i] for i in indices]
        dataset = dataset.dataset
    return dataset, indices


def _listed(dataset: object) -> Sequence[Any] | None:
    """Return the labels that a data set lists without reading an image; None where it lists none."""
    whole_set, indices = _inner(dataset)
    columns = getattr(whole_set, "column_names", None)  # of Hugging Face's `datasets`
    if isinstance(columns, list):
        column = next((key for key in LABEL_KEYS if key in columns), None)
        known = None if column is None else whole_set[column]
    else:
        known = next((v for v in (getattr(whole_set, n, None) for n in ("targets", "labels")) if v is not None), None)
    if known is None or callable(known) or not hasattr(known, "__len__") or len(known) != len(whole_set):
        return None
    return known if indices is None else [known[i] for i in indices]


def class_names(dataset: object) -> list[str]:
    """Return the names of the classes that a data set gives; none where it gives none."""
    whole_set, _ = _inner(dataset)
    names = getattr(whole_set, "classes", None)
    features = getattr(whole_set, "features", None)
    if names is None and isinstance(features, Mapping):
        names = next((features[key].names for key in LABEL_KEYS if hasattr(features.get(key), "names")), None)
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else []
