"""Detector checkpoints: reading what a run wrote, and starting a new run from it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from excite.checkpoints.bundle import load, load_exactly, locate
from excite.detect.card import DetectorCard
from excite.detect.detector import from_card
from excite.errors import ExciteError, UsageError


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], DetectorCard, dict[str, Any]]:
    """Return (weights, card, the run's configuration) of a checkpoint or run directory (its best, else its last).

    Raises UsageError for a missing file, ExciteError for one that does not hold a detector.
    """
    file = locate(path)
    content = load(file)
    if not isinstance(content, dict) or "excite_detector" not in content:
        classifier = isinstance(content, dict) and "excite" in content
        remedy = "it holds a classifier; as a backbone it goes into --checkpoint" if classifier else "not from excite"
        raise ExciteError(f"{file} holds no detector: {remedy}")
    state = content["state_dict"]
    weights = {k.removeprefix("detector."): v for k, v in state.items() if k.startswith("detector.")}
    return weights, DetectorCard.from_dict(content["excite_detector"]), dict(content.get("excite_config", {}))


def load_detector(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return (detector in eval mode, the configuration of its run) from a checkpoint or run directory."""
    weights, card, config = read_checkpoint(path)
    detector = from_card(card)
    load_exactly(detector, weights, str(locate(path)))
    return detector.eval(), config


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
