"""Who trains and who is watched where a detection set does not say it."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from excite.errors import UsageError

VAL_FRACTION = 0.2
Entry = TypeVar("Entry")


def divide(entries: Sequence[Entry], split: str, where: str) -> list[Entry]:
    """Return the entries of a split: a fifth, drawn with a fixed seed, are `val`, the others `train`.

    Raises UsageError for another split, and where there are too few to divide.
    """
    if split not in ("train", "val"):
        raise UsageError(f"{where} is not divided into splits, so there are train and val (a fifth) only, no {split!r}")
    if len(entries) < 2:
        raise UsageError(f"{where} has {len(entries)} images; at least two are needed to divide it into train and val")
    held = max(round(VAL_FRACTION * len(entries)), 1)
    drawn = set(np.random.default_rng(0).permutation(len(entries))[:held].tolist())
    return [entry for number, entry in enumerate(entries) if (number in drawn) == (split == "val")]
