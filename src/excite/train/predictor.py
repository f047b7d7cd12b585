"""Anything that turns prepared images into logits: a checkpoint of ours or an exported file."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from excite.checkpoints.bundle import build
from excite.checkpoints.reading import locate, read_checkpoint
from excite.data.preprocess import Preprocess
from excite.export.runtime import SUFFIXES, open_exported
from excite.models import NetworkSpec, spec_of


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
    Raises UsageError for a missing file, ExciteError for one that cannot be used, or that does not say
    how images are prepared.
    """
    if Path(path).suffix in SUFFIXES:
        exported = open_exported(path)
        Preprocess.of(exported.card)
        return Opened(exported, Path(path), {})
    file = locate(path)
    checkpoint = read_checkpoint(file)
    network = build(checkpoint, model)
    spec = spec_of(network)
    Preprocess.of(spec)
    return Opened(NetworkPredictor(network, spec), file, checkpoint.config)
