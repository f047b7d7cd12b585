"""What a data spec opens to: the splits, the classes, and how images are to be prepared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from torch import Tensor

from excite.card import Preparation

if TYPE_CHECKING:
    from PIL.Image import Image

HeldOut = Literal["val", "test"]


class Images(Protocol):
    """A map-style dataset of (RGB PIL image or uint8 tensor [3 h w], label)."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple["Image | Tensor", int]:
        """Decode one image. Raises UnreadableImageError, which names it."""

    def name(self, index: int) -> str:
        """Say where image `index` comes from, for messages."""


class LabelledSplit(Images, Protocol):
    """Images whose labels can be listed, and of which some can be taken."""

    @property
    def labels(self) -> Sequence[int] | Tensor:
        """The labels, in the images' order."""

    def take(self, indices: Sequence[int]) -> Self:
        """Return these images alone."""


class Split(LabelledSplit, Protocol):
    """Images whose labels are known without decoding them, and their sizes too."""

    def size(self, index: int) -> tuple[int, int]:
        """Return the width and height of an image without decoding it. Raises UnreadableImageError."""


@dataclass
class DataBundle:
    """A classification data set.

    val: the images that training watches after every epoch; separate_test: those that it never sees, where there are
    any; val_name: what the data themselves call `val`. default_preprocess: what `Preprocess.from_dict` reads:
    `{"size", "resize", "mean", "std"}`. notes: what was made of the data on the way, for people.
    """

    spec: str
    train: Images
    val: Images
    class_names: list[str]
    default_preprocess: Preparation
    separate_test: Images | None = None
    val_name: HeldOut = "val"
    notes: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def test(self) -> Images:
        """The images that scores are measured on; those of `val` where the data hold out one split only."""
        return self.val if self.separate_test is None else self.separate_test

    @property
    def test_name(self) -> HeldOut:
        """What the data call `test`."""
        return self.val_name if self.separate_test is None else "test"

    @property
    def selects(self) -> bool:
        """True where the best epoch may be chosen on `val`: it is not the split that scores are measured on."""
        return self.separate_test is not None

    def split(self, name: str | None = None) -> tuple[Images, str]:
        """Return a split (train, val, test; None: test) and what the data call it."""
        if name == "train":
            return self.train, "train"
        return (self.val, self.val_name) if name == "val" else (self.test, self.test_name)

    def describe(self) -> str:
        """Return the splits and their sizes, and what the score of a run is."""
        counts = f"{len(self.train)} training, {len(self.val)} {WORDS[self.val_name]}"
        if self.separate_test is not None:
            result = f"the result is the best epoch on the {WORDS[self.val_name]} split"
            return f"{counts}, {len(self.separate_test)} test images; {result}"
        return f"{counts} images; the {WORDS[self.val_name]} split is watched, so the result is the last epoch"


WORDS: dict[HeldOut, str] = {"val": "validation", "test": "test"}


def chosen(n: int, limit: int | None) -> Sequence[int]:
    """Return which of `n` images a limit keeps: always the same scattered ones, in their order."""
    if limit is None or limit >= n:
        return range(n)
    picked: list[int] = np.sort(np.random.default_rng(0).permutation(n)[:limit]).tolist()
    return picked
