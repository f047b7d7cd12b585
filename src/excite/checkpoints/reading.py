"""Reading weights from files and dictionaries, safely: tensors only, never code."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from excite.errors import ExciteError, UsageError

# Where training scripts put the weights, in the order in which they are preferred.
WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "model_state", "network", "params", "weights")
# What wrapping modules put before every key.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")

State = dict[str, torch.Tensor]


@dataclass
class Weights:
    """Tensors by key, where they came from, what was unwrapped on the way, and whether the file has a card of ours."""

    state: State
    source: str = "a dictionary"
    notes: list[str] = field(default_factory=list)
    card: bool = False


def read_weights(source: str | Path | Mapping[str, Any]) -> Weights:
    """Return the tensors of a file (`.safetensors`, or a torch file without code) or of a (wrapped) state dict.

    Raises UsageError for a missing file, and ExciteError for one that is damaged, needs code to be run, or holds no
    tensors.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "a dictionary")
    path = Path(source)
    if path.is_dir():
        from excite.checkpoints.bundle import locate

        path = locate(path)
    if not path.is_file():
        raise UsageError(
            f"no file {str(path)!r}; expected a file with weights (.pth, .pth.tar, .pt, .safetensors, .ckpt)"
        )
    return _unwrap(_read_file(path), str(path))


def _read_file(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise ExciteError(f"{path} is empty")
    with path.open("rb") as file:
        head = file.read(16)
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as content:
                state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (not a mapping)
                return {"excite": {}, "state_dict": state} if "excite" in (content.metadata() or {}) else state
        except (SafetensorError, OSError) as error:
            raise ExciteError(f"{path} is damaged: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ExciteError(f"{path} was refused: {_why(error)}") from error
    except Exception as error:  # damaged bytes lead the unpickler anywhere: struct, index, runtime and zip errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExciteError(f"{path} is no readable torch file: {reason}") from error


def _why(error: Exception) -> str:
    """Return what a refused pickle asked for, in one sentence."""
    text = " ".join(str(error).split())
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class "):
        if mark in text:
            name = text.split(mark, 1)[1].split(" ", 1)[0]
            return (
                f"it needs {name} to be run or built, and a file from elsewhere may run anything; "
                "where you trust it, save its weights alone: torch.save(model.state_dict(), ...)"
            )
    return f"it holds more than tensors, or is damaged ({text[:160]})"


def _unwrap(content: Any, source: str) -> Weights:
    """Find the state dict inside what a file held, and take common prefixes off its keys."""
    notes: list[str] = []
    if not isinstance(content, Mapping):
        raise ExciteError(f"{source} holds {type(content).__name__}, not a dictionary of tensors")
    card = "excite" in content
    while not _tensors(content):
        inner = next((k for k in WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            raise ExciteError(f"{source} holds no tensors; its keys: {_some(content)}")
        if "state_dict_ema" in content:
            notes.append("the file also has averaged weights (state_dict_ema), which were not used")
        beside = [str(k) for k in content if k != inner]
        notes.append(f"weights taken from {inner!r}" + (f"; left aside: {', '.join(beside)}" if beside else ""))
        content = content[inner]
    state = _tensors(content)
    left = [str(k) for k in content if k not in state]
    if left:
        notes.append(f"entries that are no tensors, left aside: {', '.join(left)}")
    return Weights(_without_prefixes(state, notes), source, notes, card)


def _tensors(content: Mapping[Any, Any]) -> State:
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def _without_prefixes(state: State, notes: list[str]) -> State:
    found = True
    while found and state:
        found = False
        for prefix in PREFIXES:
            if all(k.startswith(prefix) for k in state):
                state = {k[len(prefix) :]: v for k, v in state.items()}
                notes.append(f"prefix {prefix!r} taken off every key")
                found = True
    return state


def _some(content: Mapping[Any, Any], most: int = 6) -> str:
    keys = [str(k) for k in content]
    return (", ".join(keys[:most]) + (", ..." if len(keys) > most else "")) or "none"
