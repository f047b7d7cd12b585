"""One file = one network: weights as safetensors with the spec in the metadata; and networks out of checkpoints."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.checkpoints.transfer import check_numbers
from excite.common.files import write_bytes
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec, spec_of

# Any: torch's modes pass operators, their arguments and results of every kind.


def save_bundle(path: str | Path, model: nn.Module, card: NetworkSpec | None = None) -> None:
    """Write `model` and its card (by default the one it carries) as a .safetensors file, atomically.

    Raises UsageError if there is no card.
    """
    write_bytes(path, bundle_bytes(model, card or spec_of(model)))


def bundle_bytes(model: nn.Module, card: NetworkSpec, trained: Mapping[str, object] | None = None) -> bytes:
    """Return a network and its card as the bytes of a .safetensors file; trained: facts of its training."""
    from safetensors.torch import save

    # Tied weights share memory, which the format does not hold: they are written twice.
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    content = {**card.to_dict(), **({"trained": dict(trained)} if trained else {})}
    return save(state, metadata={"excite": json.dumps(content)})


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
    network = built(
        spec.build, (spec.num_classes, spec.in_channels, spec.options, spec.attach_options), checkpoint, model
    )
    load_exactly(network, checkpoint.weights, checkpoint.source)
    return network.eval()


def built(construct: Callable[[], nn.Module], settings: object, checkpoint: Checkpoint, asked: str | None) -> nn.Module:
    """Return the network that `construct` builds as a checkpoint's card says.

    settings: what the card says; where it says something large, the network is built without memory first, and its
    sizes are held against the weights. asked: the network that a user named instead, whose errors stay wrong usage.
    Raises ExciteError where it cannot be built, or does not fit the weights.
    """
    try:
        with bounded(checkpoint):
            if _large(settings):
                _check_sizes(construct, checkpoint)
            return construct()
    except UsageError as error:
        if asked is not None:
            raise
        raise ExciteError(f"{checkpoint.source}: the network of its card cannot be built: {error}") from error
    except ExciteError:
        raise
    except Exception as error:  # a card's values lead other libraries anywhere
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ExciteError(
            f"{checkpoint.source}: the network of its card cannot be built: {type(error).__name__}: {reason}"
        ) from error


@contextlib.contextmanager
def bounded(checkpoint: Checkpoint) -> Iterator[None]:
    """Raise ExciteError where a network that is built within the block outgrows a checkpoint's weights by far.

    So no card makes a network of a million blocks or of terabytes: parameters are counted before they are filled.
    """
    weights = checkpoint.weights
    most_modules = 2_000 + 30 * len(weights)
    most_numbers = 2**24 + 4 * sum(tensor.numel() for tensor in weights.values())
    modules = numbers = 0

    def refuse(what: str) -> None:
        raise ExciteError(f"{checkpoint.source}: its card asks for a network of far more {what} than the file holds")

    def of_module(*_: object) -> None:
        nonlocal modules
        modules += 1
        if modules > most_modules:
            refuse("layers")

    def of_parameter(owner: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal numbers
        if parameter is not None and not parameter.is_meta:
            numbers += parameter.numel()
        if numbers > most_numbers:
            refuse("numbers")

    hooks = (
        register_module_module_registration_hook(of_module),
        register_module_parameter_registration_hook(of_parameter),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_sizes(construct: Callable[[], nn.Module], checkpoint: Checkpoint) -> None:
    try:
        with torch.device("meta"), _Unfilled():
            network = construct()
    except ExciteError:
        raise
    except Exception:  # a network of another library that needs real numbers while it is built
        return
    check_fit(network, checkpoint.weights, checkpoint.source)


class _Unfilled(TorchFunctionMode):
    """Tensors of the meta device stay as they are: filling them would load the compiler for nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if args and name.endswith("_") and not name.startswith("_") and getattr(args[0], "is_meta", False):
            return args[0]
        return func(*args, **(kwargs or {}))


def _large(settings: object) -> bool:
    """True where a number above 1024, or a list of more than 64 entries, is somewhere in the settings."""
    if isinstance(settings, str):
        return any(len(digits) > 3 for digits in re.findall(r"\d+", settings))
    if isinstance(settings, Mapping):
        return any(map(_large, settings.values()))
    if isinstance(settings, list | tuple):
        return len(settings) > 64 or any(map(_large, settings))
    return isinstance(settings, int | float) and not abs(settings) <= 1024


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights that must fit in every key and shape, and be finite. Raises ExciteError with what disagrees."""
    check_fit(model, state, source)
    for key, value in model.state_dict().items():
        check_numbers(key, state[key], value, source)
    model.load_state_dict(dict(state))


def check_fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise ExciteError, listing what disagrees, unless weights fit a network in every key and shape."""
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


def _some(title: str, names: list[str], most: int = 6) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {title} ({', '.join(names[:most])}{more})"
