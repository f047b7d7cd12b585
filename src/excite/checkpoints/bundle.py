"""One file = one network: weights as safetensors, the card in the metadata; also reads runs and their checkpoints."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec, spec_of


def save_bundle(path: str | Path, model: nn.Module, card: NetworkSpec | None = None) -> None:
    """Write `model` and its card (by default the one it carries) as a .safetensors file, atomically.

    Raises UsageError if there is no card.
    """
    from safetensors.torch import save_file

    card = card or spec_of(model)
    # Tied weights share memory, which the format does not hold: they are written twice.
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    save_file(state, temporary, metadata={"excite": json.dumps(card.to_dict())})
    os.replace(temporary, target)


def load_bundle(path: str | Path, model: str | None = None) -> tuple[nn.Module, NetworkSpec]:
    """Return (network in eval mode, card) of a .safetensors bundle, a run's checkpoint or a run directory.

    Of a run directory the best checkpoint is taken, else the last.
    model: build this network instead of the one that the card names.
    Raises UsageError for a missing file, ExciteError for one that is not ours or does not fit the network.
    """
    file = locate(path)
    state, values, _ = read(file)
    card = NetworkSpec.from_dict(values, str(file))
    if model is not None:
        card = card.renamed(model)
    network = card.build()
    load_exactly(network, state, str(file))
    return network.eval(), card


def locate(path: str | Path) -> Path:
    """Return the checkpoint file that a path means. Raises UsageError."""
    given = Path(path)
    if given.is_dir():
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "best.ckpt", "last.ckpt"):
            if (given / name).is_file():
                return given / name
        raise UsageError(f"{given} holds no checkpoint; expected a run directory with checkpoints/best.ckpt")
    if not given.is_file():
        raise UsageError(f"no checkpoint {given}")
    return given


def load(file: Path) -> Any:
    """Return what `torch.save` wrote, read with `weights_only`. Raises ExciteError where it is something else."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, EOF and runtime errors, depending on where the file is broken
        # Of a file that is none, torch says no more than a number.
        told = str(error).splitlines()[0] if str(error) and not isinstance(error, KeyError) else ""
        reason = told or f"it is damaged, or nothing that torch.save wrote ({type(error).__name__})"
        raise ExciteError(f"cannot read checkpoint {file}: {reason}") from error


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return (weights, card values, configuration of the run or {}) of a file. Raises ExciteError if it is not ours."""
    if file.suffix == ".safetensors":
        return *_read_safetensors(file), {}
    content = load(file)
    if not isinstance(content, Mapping) or "excite" not in content:
        raise ExciteError(f"{file} was not written by excite; `import_checkpoint` reads the files of others")
    state = content["state_dict"]
    weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    return weights, dict(content["excite"]), dict(content.get("excite_config", {}))


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ExciteError(f"cannot read {file}: {error}") from error
    if "excite" not in metadata:
        raise ExciteError(f"{file} holds no card, so it was not written by excite")
    return state, json.loads(metadata["excite"])


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
