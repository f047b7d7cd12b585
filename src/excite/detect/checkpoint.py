"""Detector checkpoints: reading what a run wrote, and starting a new run from it."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from excite.card import DetectorCard
from excite.checkpoints.bundle import built, load_exactly
from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.common.options import Option
from excite.detect.detector import from_card
from excite.errors import UsageError


def load_detector(path: str | Path, backbone: str | None = None) -> tuple[nn.Module, dict[str, Option]]:
    """Return (detector in eval mode, the configuration of its run) from a checkpoint or run directory.

    backbone: build the detector on this network instead of the one that the card names.
    Raises UsageError for a missing file, ExciteError for one that does not hold a detector.
    """
    checkpoint = read_checkpoint(path)
    return build(checkpoint, backbone), checkpoint.config


def build(checkpoint: Checkpoint, backbone: str | None = None) -> nn.Module:
    """Return the detector of a checkpoint, in eval mode, with its weights; backbone: build it on this network."""
    card = checkpoint.detector
    if backbone is not None:
        card = replace(card, backbone=backbone, source="")
    detector = built(lambda: from_card(card), (card.num_classes, card.options), checkpoint, backbone)
    load_exactly(detector, checkpoint.weights, checkpoint.source)
    return detector.eval()


def check_classes(card: DetectorCard, class_names: list[str], checkpoint: str, data: str) -> None:
    """Raise UsageError where a checkpoint's categories are not those of the data."""
    if card.num_classes != len(class_names) + 1:
        raise UsageError(
            f"{checkpoint} has {card.num_classes - 1} categories ({_some(card.class_names)}), data {data!r} has "
            f"{len(class_names)} ({_some(class_names)}); they must agree"
        )
    if card.class_names is not None and card.class_names != class_names:
        own, other = next((a, b) for a, b in zip(card.class_names, class_names, strict=True) if a != b)
        raise UsageError(f"{checkpoint} calls a category {own!r} which data {data!r} calls {other!r}; they must agree")


def _some(names: list[str] | None, most: int = 4) -> str:
    if names is None:
        return "without names"
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
