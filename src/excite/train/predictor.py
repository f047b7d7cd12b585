"""Anything that turns prepared images into logits: a checkpoint of ours or an exported file."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from excite.checkpoints.bundle import load_bundle, locate, read
from excite.errors import ExciteError
from excite.export.runtime import SUFFIXES, open_exported
from excite.models import NetworkSpec


class Predictor(Protocol):
    """A classifier ready for use. `card` holds its class names and preprocessing."""

    card: NetworkSpec

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits [n classes] of normalised images [n c h w] (float32)."""


class NetworkPredictor:
    """A network in eval mode, without gradients."""

    def __init__(self, network: nn.Module, card: NetworkSpec) -> None:
        self.network, self.card = network.eval(), card

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits [n classes] of normalised images [n c h w]."""
        with torch.inference_mode():
            return self.network(x).float()


class Opened(NamedTuple):
    """A predictor, the file it came from, and the configuration of its training run ({} if unknown)."""

    predictor: Predictor
    file: Path
    config: dict[str, Any]


def open_predictor(path: str | Path, model: str | None = None) -> Opened:
    """Open a checkpoint, a run directory or an exported file (.onnx, .xml, .pt2).

    model: build this network for the weights, not the one that the file names.
    Raises UsageError for a missing file, ExciteError for one that cannot be used.
    """
    if Path(path).suffix in SUFFIXES:
        exported = open_exported(path)
        return Opened(_prepared(exported), Path(path), {})
    file = locate(path)
    network, card = load_bundle(file, model)
    _, _, config = read(file)
    return Opened(_prepared(NetworkPredictor(network, card)), file, config)


def _prepared(predictor: Predictor) -> Predictor:
    if not predictor.card.preprocess:
        raise ExciteError(f"the card of {predictor.card.name} does not say how images are prepared")
    return predictor


def normalise(images: Tensor, card: NetworkSpec) -> Tensor:
    """Return uint8 images [n 3 h w] as the network wants them: float32, mean and deviation of the card."""
    how = card.preprocess or {}
    scaled = images.float() / 255
    if card.in_channels == 1:
        scaled = scaled.mean(1, keepdim=True)
    mean = torch.tensor(how["mean"][: card.in_channels]).view(1, -1, 1, 1)
    std = torch.tensor(how["std"][: card.in_channels]).view(1, -1, 1, 1)
    return (scaled - mean) / std
