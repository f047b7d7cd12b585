"""Scores that treat all classes alike, from a confusion matrix [classes classes] whose rows are the true classes."""

from typing import NamedTuple

from torch import Tensor


class Confused(NamedTuple):
    """Two classes: images of the first that were taken for the second, of so many."""

    true: int
    predicted: int
    times: int
    images: int


def balanced_accuracy(confusion: Tensor) -> float:
    """Return the mean over the classes that have images of the share of these that was right."""
    images = confusion.sum(1)
    there = images > 0
    return float((confusion.diagonal()[there] / images[there]).mean()) if there.any() else 0.0


def macro_f1(confusion: Tensor) -> float:
    """Return the mean F1 of the classes that have images or were predicted."""
    both = confusion.sum(0) + confusion.sum(1)
    there = both > 0
    return float((2 * confusion.diagonal()[there] / both[there]).mean()) if there.any() else 0.0


def most_confused(confusion: Tensor, most: int = 5) -> list[Confused]:
    """Return the pairs of classes that were confused most often, the first of equals first."""
    errors = confusion.clone().fill_diagonal_(0)
    classes = len(errors)
    order = errors.flatten().argsort(descending=True, stable=True)[:most].tolist()
    pairs = [(index // classes, index % classes) for index in order]
    return [Confused(a, b, int(errors[a, b]), int(confusion[a].sum())) for a, b in pairs if errors[a, b]]
