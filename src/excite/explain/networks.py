"""Networks by name for the commands that look at them: a checkpoint, or `random:NAME` for an untrained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from excite.data.preprocess import Preprocess
from excite.data.specs import trained_on
from excite.errors import UsageError
from excite.models import NetworkSpec


@dataclass
class Network:
    """A network ready to look at: in eval mode; label: unique among those opened together."""

    label: str
    source: str
    model: nn.Module
    card: NetworkSpec
    data: str | None = None  # the spec it was trained on, where its run says so

    @property
    def preprocess(self) -> Preprocess:
        """How its images are prepared. Raises ExciteError where the card does not say it."""
        return Preprocess.of(self.card)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its number."""
        names = self.card.class_names
        return names[index] if names and index < len(names) else f"class {index}"


def open_network(source: str) -> Network:
    """Open a checkpoint, a run directory, or `random:NAME` (weights drawn with seed 0, for networks without training).

    Raises UsageError where there is no such file or name, ExciteError where the file is not a checkpoint.
    """
    if source.startswith("random:"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            card = NetworkSpec(source[7:], preprocess=Preprocess.usual().to_dict())
            model = card.build()
        return Network(f"{card.name} (random)", source, model.eval(), card)
    if not Path(source).exists():
        raise UsageError(f"no checkpoint {source!r}; give a file, a run directory, or random:NAME")
    from excite.checkpoints.bundle import load_bundle

    model, card = load_bundle(source)
    return Network(card.name, source, model.eval(), card, trained_on(source))


def open_networks(sources: Sequence[str]) -> list[Network]:
    """Open several; equal names are told apart by their files' or folders' names, then by number."""
    opened = [open_network(s) for s in sources]
    for network in opened:
        if sum(o.card.name == network.card.name for o in opened) > 1:
            path = Path(network.source)
            stem = path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"
            network.label = f"{network.label} ({stem})"
    for i, network in enumerate(opened):
        if any(o.label == network.label for o in opened[:i]):
            network.label = f"{network.label} #{i + 1}"
    return opened
