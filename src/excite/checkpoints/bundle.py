"""One file = one network: weights as safetensors with the spec in the metadata; and networks out of checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.common.files import write_bytes
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec, spec_of


def save_bundle(path: str | Path, model: nn.Module, card: NetworkSpec | None = None) -> None:
    """Write `model` and its card (by default the one it carries) as a .safetensors file, atomically.

    Raises UsageError if there is no card.
    """
    from safetensors.torch import save

    card = card or spec_of(model)
    # Tied weights share memory, which the format does not hold: they are written twice.
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    write_bytes(path, save(state, metadata={"excite": json.dumps(card.to_dict())}))


def load_bundle(path: str | Path, model: str | None = None) -> tuple[nn.Module, NetworkSpec]:
    """Return (network in eval mode, its spec) of a .safetensors bundle, a run's checkpoint or a run directory.

    Of a run directory the best checkpoint is taken, else the last.
    model: build this network instead of the one that the card names.
    Raises UsageError for a missing file, ExciteError for one that is not ours or does not fit the network.
    """
    network = build(read_checkpoint(path), model)
    return network, spec_of(network)


def build(checkpoint: Checkpoint, model: str | None = None) -> nn.Module:
    """Return the classifier of a checkpoint, in eval mode, with its weights; model: build this network instead.

    Raises ExciteError for a checkpoint that holds no classifier or does not fit the network.
    """
    spec = checkpoint.spec if model is None else checkpoint.spec.renamed(model)
    try:
        network = spec.build()
    except UsageError as error:
        if model is not None:
            raise
        raise ExciteError(f"{checkpoint.source}: the network of its card cannot be built: {error}") from error
    load_exactly(network, checkpoint.weights, checkpoint.source)
    return network.eval()


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights that must fit in every key and shape. Raises ExciteError that lists what disagrees."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {list(state[key].shape)} there and {list(own[key].shape)} here"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            _some("missing there", missing),
            _some("unknown here", unexpected),
            _some("of another shape", shapes),
        ]
        name = getattr(getattr(model, "excite_card", None), "name", type(model).__name__)
        raise ExciteError(f"{source} does not fit the network {name}: " + "; ".join(p for p in parts if p))
    model.load_state_dict(dict(state))


def _some(title: str, names: list[str], most: int = 6) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {title} ({', '.join(names[:most])}{more})"
