"""What a data spec opens to: two splits, the classes, and how images are to be prepared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from excite.card import Preparation

if TYPE_CHECKING:
    from PIL.Image import Image


class Images(Protocol):
    """A map-style dataset of (RGB PIL image or uint8 tensor [3 h w], label)."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple["Image | Tensor", int]:
        """Decode one image. Raises UnreadableImageError, which names it."""

    def name(self, index: int) -> str:
        """Say where image `index` comes from, for messages."""


@dataclass
class DataBundle:
    """A classification data set.

    default_preprocess: what `Preprocess.from_dict` reads: `{"size", "resize", "mean", "std"}`.
    """

    spec: str
    train: Images
    val: Images
    class_names: list[str]
    default_preprocess: Preparation

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def chosen(n: int, limit: int | None) -> Sequence[int]:
    """Return which of `n` images a limit keeps: always the same scattered ones, in their order."""
    if limit is None or limit >= n:
        return range(n)
    picked: list[int] = np.sort(np.random.default_rng(0).permutation(n)[:limit]).tolist()
    return picked
