"""What a network costs on paper: parameters, multiply-accumulates by convention, activations, memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from excite.errors import ExciteError, UsageError
from excite.inspect.attention import attention_paths
from excite.inspect.trace import Trace, needs_numbers, trace_model
from excite.measure.conventions import MODULE_CONVENTIONS, check, count, seen_parameters

InputSize = int | tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One module of the breakdown, with everything below it. `depth`: 0 is the network; `calls`: how often it ran."""

    path: str
    kind: str
    depth: int
    leaf: bool
    params: int
    attention_params: int
    output: tuple[int, ...]
    activations: int
    counts: dict[str, int]


@dataclass
class Profile:
    """The cost of one network for one input `[n c *space]`.

    params, trainable, attention_params: learned numbers; macs: count by convention name; attention_macs: the part of it
    inside attention modules; seen_params: what each thop generation reports as parameters; activations: output elements
    of convolutions and matrix products; weight_bytes, buffer_bytes: of all parameters and buffers; peak_bytes: most
    bytes of intermediate tensors alive at once during inference, the input included; device: "meta", unless the network
    needs real numbers; rows: one per module.
    """

    name: str
    input_shape: tuple[int, ...]
    params: int
    trainable: int
    attention_params: int
    weight_bytes: int
    buffer_bytes: int
    peak_bytes: int
    activations: int
    macs: dict[str, int] = field(default_factory=dict)
    attention_macs: dict[str, int] = field(default_factory=dict)
    seen_params: dict[str, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    device: str = "meta"
    notes: list[str] = field(default_factory=list)


def input_shape(size: InputSize, in_channels: int = 3, batch_size: int = 1) -> tuple[int, ...]:
    """Return `(n, c, *space)`: an int is a square of that side. Raises UsageError for sizes below 1."""
    space = (size, size) if isinstance(size, int) else tuple(size)
    if not space or any(s < 1 for s in space):
        raise UsageError(f"input size {size!r}: every side must be at least 1 pixel")
    if in_channels < 1 or batch_size < 1:
        raise UsageError(f"channels and batch size must be at least 1, got {in_channels} and {batch_size}")
    return (batch_size, in_channels, *space)


class _NoFilling(TorchFunctionMode):
    """Skips random filling of meta tensors: there is nothing to fill, and torch would load its compiler to do it."""

    FILLS = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        filling = func in self.FILLS or getattr(func, "__module__", "") == "torch.nn.init"
        if filling and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **(kwargs or {}))


def build_named(build: Callable[[], nn.Module], name: str) -> nn.Module:
    """Return the network that `build` builds. Raises ExciteError that names it."""
    try:
        return build()
    except ExciteError:
        raise
    except Exception as error:
        raise ExciteError(f"model {name!r} could not be built: {type(error).__name__}: {error}") from error


def build_on_meta(build: Callable[[], nn.Module], name: str) -> nn.Module:
    """Build a network without allocating its weights; on the CPU where its constructor needs real numbers."""
    try:
        with torch.device("meta"), _NoFilling():
            return build()
    except ExciteError:
        raise
    except Exception:
        return build_named(build, name)


def profile_model(
    model: nn.Module, input_size: InputSize = 224, conventions: Sequence[str] = ("macs",), *, name: str = ""
) -> Profile:
    """Profile a network for an input of `input_size`: side or sides in pixels, or a whole shape `(n, c, *space)`.

    conventions: names of `measure.CONVENTIONS`. The weights stay as and where they are. Raises UsageError for unknown
    conventions or an impossible size, ExciteError where the forward pass fails, with the layer.
    """
    names = check(conventions)
    if isinstance(input_size, tuple) and len(input_size) >= 3:
        shape = input_shape(input_size[2:], input_size[1], input_size[0])
    else:
        shape = input_shape(input_size, getattr(getattr(model, "excite_card", None), "in_channels", 3))
    trace = trace_model(model, shape)
    return summarise(model, trace, shape, names, name or type(model).__name__)


def profile_named(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], conventions: Sequence[str]
) -> Profile:
    """Build a network by `build` on the meta device and profile it; on the CPU where it needs real numbers."""
    names = check(conventions)
    model = build_on_meta(build, name)
    try:
        trace = trace_model(model, shape)
    except ExciteError as error:
        if not needs_numbers(error):
            raise ExciteError(f"{name}: {error}") from error
        model = build()
        trace = trace_model(model, shape)
    profile = summarise(model, trace, shape, names, name)
    if profile.device != "meta":
        profile.notes.append(f"ran on {profile.device}: this network needs real numbers in its forward pass")
    return profile


def summarise(model: nn.Module, trace: Trace, shape: tuple[int, ...], conventions: Sequence[str], name: str) -> Profile:
    """Turn a trace into a profile."""
    counts = {convention: count(trace, convention) for convention in conventions}
    attention = attention_paths(model)
    parameters = list(model.parameters())
    element = next((p.element_size() for p in parameters), 4)
    activations: dict[str, int] = {}
    for op in trace.ops:
        if op.macs:
            activations[op.path] = activations.get(op.path, 0) + _prod(op.y)
    return Profile(
        name=name,
        input_shape=shape,
        params=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        attention_params=sum(p.numel() for p in _unique_parameters(model, attention)),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
        buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
        peak_bytes=trace.peak_bytes + _prod(shape) * element,
        activations=sum(activations.values()),
        macs={c: sum(v.values()) for c, v in counts.items()},
        attention_macs={c: sum(_below(v, paths=attention)) for c, v in counts.items()},
        seen_params={c: seen_parameters(trace, c) for c in conventions if c in MODULE_CONVENTIONS and c != "mmcv"},
        rows=_rows(model, trace, counts, activations, attention),
        device=trace.device,
    )


def _prod(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def _inside(path: str, parent: str) -> bool:
    return not parent or path == parent or path.startswith(parent + ".")


def _below(values: dict[str, int], paths: Sequence[str]) -> list[int]:
    return [n for path, n in values.items() if any(_inside(path, parent) for parent in paths)]


def _unique_parameters(model: nn.Module, paths: Sequence[str]) -> list[nn.Parameter]:
    parameters = {id(p): p for path in paths for p in model.get_submodule(path).parameters()}
    return list(parameters.values())


def _rows(
    model: nn.Module,
    trace: Trace,
    counts: dict[str, dict[str, int]],
    activations: dict[str, int],
    attention: Sequence[str],
) -> list[Row]:
    """One row per module, in the network's own order, each the sum of what lies below it."""
    sums: dict[str, dict[str, int]] = {}
    columns: dict[str, dict[str, int]] = {**counts, "activations": activations}
    for column, values in columns.items():
        for path, value in values.items():
            for prefix in _prefixes(path):
                cell: dict[str, int] = sums.setdefault(prefix, {})
                cell[column] = cell.get(column, 0) + value
    rows = []
    for path, module in model.named_modules():
        own = sums.get(path, {})
        inner = [a for a in attention if _inside(a, path)]
        if any(_inside(path, a) for a in attention):
            inner = [path]
        row = Row(
            path=path,
            kind=type(module).__name__,
            depth=path.count(".") + 1 if path else 0,
            leaf=next(module.children(), None) is None,
            params=sum(p.numel() for p in module.parameters()),
            attention_params=sum(p.numel() for p in _unique_parameters(model, inner)),
            output=trace.outputs.get(path, ()),
            activations=own.get("activations", 0),
            counts={c: own.get(c, 0) for c in counts},
        )
        rows.append(row)
    return rows


def _prefixes(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))]
