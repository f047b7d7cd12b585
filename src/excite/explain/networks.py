"""Networks by name for the commands that look at them: a checkpoint, or `random:NAME` for an untrained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from excite.data.preprocess import Preprocess
from excite.errors import UsageError
from excite.models import NetworkSpec, spec_of


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


def open_network(source: str, model: str | None = None) -> Network:
    """Open a checkpoint, a run directory, or `random:NAME` (weights drawn with seed 0, for networks without training).

    model: build this network for the weights of a checkpoint instead of the one that it names.
    Raises UsageError where there is no such file or name, ExciteError where the file is not a checkpoint.
    """
    if source.startswith("random:"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            card = NetworkSpec(source[7:], preprocess=Preprocess.usual().to_dict())
            untrained = card.build()
        return Network(f"{card.name} (random)", source, untrained.eval(), card)
    from excite.checkpoints.importing import network_of
    from excite.checkpoints.reading import read_checkpoint

    checkpoint = read_checkpoint(source)
    network = network_of(checkpoint, model)[0]
    card = spec_of(network)
    return Network(card.name, source, network, card, checkpoint.trained_on)


def models_of(sources: Sequence[str], models: Sequence[str]) -> list[str | None]:
    """Return the network to build for each source.

    models: one for all checkpoints, or one for each in their order; networks of `random:NAME` need none.
    Raises UsageError where there are more or fewer of them.
    """
    files = [s for s in sources if not s.startswith("random:")]
    if len(models) not in (0, 1, len(files)) or (models and not files):
        raise UsageError(
            f"--model names {len(models)} networks for {len(files)} checkpoints; give one for all of them, or one for "
            "each in their order"
        )
    each = iter(models if len(models) > 1 else [*models] * len(files))
    return [None if s.startswith("random:") else next(each, None) for s in sources]


def open_networks(sources: Sequence[str], models: Sequence[str | None] | None = None) -> list[Network]:
    """Open several; equal names are told apart by their files' or folders' names, then by number.

    models: the network to build for each source instead of the one that it names; see `models_of`.
    """
    opened = [open_network(s, m) for s, m in zip(sources, models or [None] * len(sources), strict=True)]
    for network in opened:
        if sum(o.card.name == network.card.name for o in opened) > 1:
            path = Path(network.source)
            file = "/".join(part for part in (path.parent.name, path.stem) if part)
            network.label = f"{network.label} ({file if path.is_file() else path.name})"
    for i, network in enumerate(opened):
        if any(o.label == network.label for o in opened[:i]):
            network.label = f"{network.label} #{i + 1}"
    return opened
