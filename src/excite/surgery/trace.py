"""Run a network once on tensors without data and write down which operation made which tensor, in which module."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from excite.errors import ExciteError, UsageError

WEIGHTED = {"convolution", "_convolution", "addmm", "mm", "bmm", "baddbmm", "linear"}
SIZES = {
    1: ((1024,), (256,), (64,)),
    2: ((224, 224), (32, 32), (28, 28), (299, 299)),
    3: ((32, 112, 112), (16, 64, 64)),
}


@dataclass(frozen=True)
class Node:
    """One tensor made during the pass: the operation, the nodes it read, its shape, and the modules it ran in.

    stack: paths of the modules on the way, outermost first. channel_dim: the axis of channels, where known.
    event: shared by all tensors that one operation returned.
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    stack: tuple[str, ...]
    channel_dim: int | None
    flops: int = 0
    event: int = 0

    @property
    def space(self) -> tuple[int, ...]:
        """Sizes of the axes after the channels."""
        return self.shape[2:]


@dataclass(frozen=True)
class Call:
    """One call of a module: the nodes that went in and, where it returned one tensor, the node that came out."""

    inputs: tuple[int, ...]
    output: int | None


@dataclass
class Trace:
    """What happened in one forward pass."""

    input_size: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()

    def is_map(self, index: int) -> bool:
        """Tell whether a node is a feature map `[n c *space]` with more than one position."""
        node = self.nodes[index]
        return len(node.shape) == len(self.input_size) + 1 and node.channel_dim == 1 and math.prod(node.space) > 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products for one sample."""
        return sum(node.flops for node in self.nodes) // 2


class _Recorder(TorchDispatchMode):
    """Turn every operation on the way from the input into a Node."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.stack: list[str] = []
        self.index: dict[int, int] = {}
        self.events = 0
        self.alive: list[torch.Tensor] = []  # ids are reused once a tensor is gone, so none may go

    def add(self, tensor: torch.Tensor, op: str, inputs: tuple[int, ...], channel_dim: int | None, flops: int) -> None:
        at, shape = len(self.trace.nodes), tuple(tensor.shape)
        node = Node(at, op, inputs, shape, tuple(self.stack), channel_dim, flops, self.events)
        self.trace.nodes.append(node)
        self.index[id(tensor)] = node.index
        self.alive.append(tensor)

    def find(self, values: Any) -> tuple[int, ...]:
        tensors = (v for v in tree_leaves(values) if isinstance(v, torch.Tensor))
        return tuple(self.index[id(t)] for t in tensors if id(t) in self.index)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = self.find((args, kwargs))
        out = func(*args, **kwargs)
        if not inputs:
            return out
        op = func._schema.name.partition("::")[2]
        op = op[:-1] if op.endswith("_") and not op.endswith("__") else op
        if op == "convolution" and len(args) > 6 and args[6]:
            op = "convolution_transpose"
        counted = flop_registry.get(func.overloadpacket)
        self.events += 1
        flops = int(counted(*args, **kwargs, out_val=out)) if counted else 0
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                dim = _channel_dim(op, args, [self.trace.nodes[i] for i in inputs], tensor)
                self.add(tensor, op, inputs, dim, flops)
                flops = 0
        return out


def _channel_dim(op: str, args: Sequence[Any], inputs: Sequence[Node], out: torch.Tensor) -> int | None:
    """Follow the axis of channels through one operation; None where it is lost."""
    source = inputs[0]
    if op.startswith("convolution"):
        return 1
    if op in WEIGHTED:
        return out.dim() - 1
    if op in ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "native_group_norm"):
        if tuple(out.shape) == source.shape or op == "native_group_norm":
            return source.channel_dim
        kept = source.channel_dim is not None and source.channel_dim == len(source.shape) - 1
        return out.dim() - 1 if kept and out.shape[-1] == source.shape[-1] else (1 if _shuffled(source, out) else None)
    if op == "permute" and source.channel_dim is not None:
        order = [d % out.dim() for d in args[1]]
        return order.index(source.channel_dim)
    if op == "transpose" and source.channel_dim is not None:
        a, b = args[1] % out.dim(), args[2] % out.dim()
        return {a: b, b: a}.get(source.channel_dim, source.channel_dim)
    known = [n.channel_dim for n in inputs if len(n.shape) == out.dim() and n.channel_dim is not None]
    return known[0] if known else None


def _shuffled(source: Node, out: torch.Tensor) -> bool:
    """Tell whether a view splits or joins the channels alone, as a channel shuffle does: the space axes stay."""
    space = len(source.space) if source.channel_dim == 1 else 2
    return len(source.shape) > 3 and tuple(out.shape[-space:]) == source.shape[-space:] and out.dim() >= 3


@contextmanager
def _watched(model: nn.Module, recorder: _Recorder) -> Any:
    """Hook every module for the time of one pass; the hooks and the train flags are put back whatever happens."""
    handles = []
    flags = [(m, m.training) for m in model.modules()]

    def enter(path: str) -> Any:
        return lambda module, args: recorder.stack.append(path)

    def leave(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            recorder.stack.pop()
            found = recorder.find(output) if isinstance(output, torch.Tensor) else ()
            call = Call(recorder.find(args), found[0] if found else None)
            recorder.trace.calls.setdefault(path, []).append(call)

        return hook

    try:
        model.eval()
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter(path)))
            handles.append(module.register_forward_hook(leave(path), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in flags:
            module.training = flag


def record(model: nn.Module, input_size: Sequence[int] | None = None) -> Trace:
    """Return the trace of `model` for one sample of `input_size` (channels, then space), no data computed.

    Without `input_size` the network's first convolution and, for timm, its configuration say what to try.
    Raises UsageError where the network has no convolution, ExciteError where no size passes through it.
    """
    failures = []
    for size in [_sizes(input_size)] if input_size is not None else list(_guesses(model)):
        # Quickest first; data only where it is cheap.
        for way in (_on_meta, _on_fakes, *[_on_data] * (math.prod(size) <= 3 * 64 * 64)):
            try:
                return _record(model, size, way)
            except Exception as error:
                failures.append(f"{size}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    tried = "; ".join(dict.fromkeys(f[:160] for f in failures))
    raise ExciteError(
        f"cannot follow {type(model).__name__}: its forward pass failed for every input size tried ({tried}); "
        "name one with input_size=(channels, height, width), or pass the part that maps an image to features"
    )


def _sizes(given: Sequence[int] | str) -> tuple[int, ...]:
    """Read channels and space, also from text as a command line gives it ("3,224,224" or "3x224x224")."""
    parts = re.split(r"[x,]", given) if isinstance(given, str) else given
    try:
        sizes = tuple(int(p) for p in parts)
    except (TypeError, ValueError):
        sizes = ()
    if not 2 <= len(sizes) <= 4 or min(sizes) < 1:
        raise UsageError(f"input_size={given!r} is not (channels, height, width), (channels, length) or 3-D alike")
    return sizes


Way = Callable[[nn.Module, _Recorder, tuple[int, ...], torch.Tensor], Any]


def _record(model: nn.Module, size: tuple[int, ...], way: Way) -> Trace:
    trace = Trace(size)
    recorder = _Recorder(trace)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    with torch.no_grad(), _watched(model, recorder):
        out = way(model, recorder, (1, *size), like)
    trace.outputs = recorder.find(out)
    return trace


def _on_meta(model: nn.Module, recorder: _Recorder, shape: tuple[int, ...], like: torch.Tensor) -> Any:
    """Run with every parameter and buffer replaced by one without data: fast, but all tensors must be registered."""
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    bare = {k: torch.empty_like(t, device="meta") for k, t in tensors}
    x = torch.empty(shape, device="meta", dtype=like.dtype)
    recorder.add(x, "input", (), 1, 0)
    with recorder:
        return functional_call(model, bare, (x,))


def _on_fakes(model: nn.Module, recorder: _Recorder, shape: tuple[int, ...], like: torch.Tensor) -> Any:
    """Run with fake tensors, which stand for any tensor and know their device."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to load and seldom needed

    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(shape, device=like.device, dtype=like.dtype)
        recorder.add(x, "input", (), 1, 0)
        with recorder:
            return model(x)


def _on_data(model: nn.Module, recorder: _Recorder, shape: tuple[int, ...], like: torch.Tensor) -> Any:
    """Run for real, on zeros."""
    x = torch.zeros(shape, device=like.device, dtype=like.dtype)
    recorder.add(x, "input", (), 1, 0)
    with recorder:
        return model(x)


def _guesses(model: nn.Module) -> Iterable[tuple[int, ...]]:
    """Yield input sizes that the network may accept, likeliest first."""
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if conv is None:
        raise UsageError(f"{type(model).__name__} has no convolution, so it has no channels to weigh")
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    known = config.get("input_size") if isinstance(config, dict) else None
    if known:
        yield (conv.in_channels, *known[1:])
    for space in SIZES[len(conv.kernel_size)]:
        yield (conv.in_channels, *space)
