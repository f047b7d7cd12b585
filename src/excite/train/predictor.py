"""Anything that turns prepared images into logits: a checkpoint of ours or an exported file."""

from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from excite.checkpoints.importing import network_of
from excite.checkpoints.reading import locate, read_checkpoint
from excite.common.options import Option
from excite.data.preprocess import Preprocess
from excite.errors import ExciteError, UsageError
from excite.export.runtime import SUFFIXES, open_exported
from excite.models import NetworkSpec, spec_of
from excite.runtime import pick_device


class Predictor(Protocol):
    """A classifier ready for use. `card` holds its class names and preprocessing."""

    card: NetworkSpec

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits [n classes] of normalised images [n c h w] (both float32 on the CPU)."""


def check_logits(logits: Tensor, name: str) -> None:
    """Raise ExciteError where a network gives numbers that are not finite: no class is more probable than another."""
    if not torch.isfinite(logits).all():
        raise ExciteError(f"the network {name} gives numbers that are not finite (nan, inf): its weights are damaged")


class NetworkPredictor:
    """A network in eval mode on `device`, without gradients."""

    def __init__(self, network: nn.Module, card: NetworkSpec, device: str = "cpu") -> None:
        self.network, self.card, self.device = network.eval().to(device), card, device

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits [n classes] of normalised images [n c h w]."""
        with torch.inference_mode():
            return self.network(x.to(self.device)).float().cpu()


class Opened(NamedTuple):
    """A predictor, the file it came from, and the configuration of its training run ({} if unknown)."""

    predictor: Predictor
    file: Path
    config: dict[str, Option]


def open_predictor(path: str | Path, model: str | None = None, device: str = "cpu") -> Opened:
    """Open a checkpoint, ours or an author's, a run directory or an exported file (.onnx, .xml, .pt2).

    model: build this network for the weights, not the one that the file names. device: auto, cpu or cuda; exported
    files run on the CPU. Raises UsageError for a missing file and for a model or device that an exported file cannot
    have, ExciteError for a file that cannot be used, or that does not say how images are prepared.
    """
    processor = pick_device(device)
    if Path(path).suffix in SUFFIXES:
        if model is not None:
            raise UsageError(f"{path} is an exported network, built already; --model {model} has no effect on it")
        if device == "cuda":
            raise UsageError(f"--device cuda: {path} is an exported network, which runs on the CPU; use --device cpu")
        exported = open_exported(path)
        Preprocess.of(exported.card)
        return Opened(exported, Path(path), {})
    file = locate(path)
    checkpoint = read_checkpoint(file)
    network = network_of(checkpoint, model)[0]
    spec = spec_of(network)
    Preprocess.of(spec)
    return Opened(NetworkPredictor(network, spec, processor), file, checkpoint.config)
