"""Run a network once, normally on tensors without data, and write down what it did.

The one recorder of shapes and counts. Three levels are watched, because the published counters look at three levels:
calls of modules (thop, mmcv), aten operations (torch's flop counter, fvcore) and one function that aten splits up
(fvcore). Tensors on the way from the input are nodes of a graph, in which surgery finds branches and blocks.
"""

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from excite.errors import ExciteError, UsageError

# Any: torch's modes pass operators, their arguments and results of every kind.

Shape = tuple[int, ...]

META_ERRORS = ("meta", "Tensor.item()", "data pointer", "fake tensor")
WEIGHTED = {"convolution", "_convolution", "addmm", "mm", "bmm", "baddbmm", "linear"}


@dataclass(frozen=True)
class Node:
    """One tensor made on the way from the input: the operation, the nodes it read, its shape, the modules it ran in.

    stack: paths of the modules on the way, outermost first. channel_dim: the axis of channels, where known.
    event: shared by all tensors that one operation returned.
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    shape: Shape
    stack: tuple[str, ...]
    channel_dim: int | None
    event: int = 0

    @property
    def space(self) -> Shape:
        """Sizes of the axes after the channels."""
        return self.shape[2:]


@dataclass(frozen=True)
class LayerCall:
    """One call of one module: its path, the module, shapes of the first input and of the output.

    inputs: the nodes that went in; output: the node that came out, where it returned one tensor.
    """

    path: str
    module: nn.Module
    x: Shape
    y: Shape
    inputs: tuple[int, ...] = ()
    output: int | None = None


@dataclass(frozen=True)
class OpCall:
    """One counted aten operation (or named function): path of the module that called it, name, arguments' shapes.

    macs: multiply-accumulates (convolutions and matrix products, else 0); shapes: one per argument, None where the
    argument is no tensor; flags: its boolean arguments; y: output shape.
    """

    path: str
    name: str
    macs: int
    shapes: tuple[Shape | None, ...]
    flags: tuple[bool, ...]
    y: Shape


@dataclass
class Trace:
    """What one forward pass did.

    input_shape: of the first input, `[n c *space]`. layers: calls of modules, in the order in which they ended. ops:
    what counters count. nodes: tensors on the way from the input; results: those that the network returned. outputs:
    shape of each module's last output. peak_bytes: most bytes of intermediate tensors alive at one time.
    """

    input_shape: Shape = ()
    layers: list[LayerCall] = field(default_factory=list)
    ops: list[OpCall] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    results: tuple[int, ...] = ()
    outputs: dict[str, Shape] = field(default_factory=dict)
    peak_bytes: int = 0
    device: str = "meta"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products."""
        return sum(op.macs for op in self.ops)

    @property
    def calls(self) -> dict[str, list[LayerCall]]:
        """The calls of each module that ran, by path."""
        calls: dict[str, list[LayerCall]] = {}
        for call in self.layers:
            calls.setdefault(call.path, []).append(call)
        return calls

    def is_map(self, index: int) -> bool:
        """True if a node is a feature map `[n c *space]` with more than one position."""
        node = self.nodes[index]
        return len(node.shape) == len(self.input_shape) and node.channel_dim == 1 and math.prod(node.space) > 1


def shape_of(value: object) -> Shape:
    """Return the shape of a tensor, or of the first tensor in a container; () where there is none."""
    return next((tuple(tensor.shape) for tensor in tensors_in(value)), ())


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested containers, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


class _Recorder(TorchDispatchMode):
    """Writes down operations, follows the tensors that come from the input, and the life of every storage.

    known: storages (their `_cdata`) whose bytes are not counted.
    """

    watches_memory = False  # True lets fused kernels run under it: they allocate less than the modules do

    def __init__(self, trace: Trace, known: set[int] | None = None) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.trace, self.flops = trace, flop_registry
        self.stack: list[str] = []
        self.events = 0
        self.index: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self.alive: dict[int, int] = dict.fromkeys(known or (), 0)
        self.live = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True would guard every operation against the compiler, and load the compiler (seconds) to do so.
        return False

    @property
    def path(self) -> str:
        """The module that is running."""
        return self.stack[-1] if self.stack else ""

    def add(self, tensor: torch.Tensor, op: str, inputs: tuple[int, ...], channel_dim: int | None) -> None:
        """Make a tensor a node."""
        at = len(self.trace.nodes)
        stack = tuple(self.stack)
        self.trace.nodes.append(Node(at, op, inputs, tuple(tensor.shape), stack, channel_dim, self.events))
        self.index[id(tensor)] = weakref.ref(tensor), at

    def find(self, value: object) -> tuple[int, ...]:
        """The nodes in a container of arguments."""
        entries = ((tensor, self.index.get(id(tensor))) for tensor in tensors_in(value))
        # An id is used again once its tensor is gone.
        return tuple(entry[1] for tensor, entry in entries if entry is not None and entry[0]() is tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        inputs = self.find((args, kwargs))
        out = _shapes_only(name, args)
        if out is None:
            out = func(*args, **kwargs)
        flops = self.flops.get(func._overloadpacket)
        if flops is not None or name in WATCHED:
            macs = int(flops(*args, **kwargs, out_val=out)) // 2 if flops is not None else 0
            shapes = tuple(tuple(a.shape) if isinstance(a, torch.Tensor) else None for a in args)
            flags = tuple(a for a in args if isinstance(a, bool))
            self.trace.ops.append(OpCall(self.path, name, macs, shapes, flags, shape_of(out)))
        if inputs:
            self._extend(name, args, inputs, out)
        self._follow(out)
        return out

    def _extend(self, name: str, args: Sequence[Any], inputs: tuple[int, ...], out: object) -> None:
        op = name[:-1] if name.endswith("_") and not name.endswith("__") else name
        if op == "convolution" and len(args) > 6 and args[6]:
            op = "convolution_transpose"
        self.events += 1
        sources = [self.trace.nodes[i] for i in inputs]
        for tensor in tensors_in(out):
            self.add(tensor, op, inputs, _channel_dim(op, args, sources, tensor))

    def _follow(self, out: object) -> None:
        for item in tensors_in(out):
            if item.layout != torch.strided:
                continue
            storage = item.untyped_storage()
            key = storage._cdata
            if key in self.alive:
                continue
            self.alive[key] = size = storage.nbytes()
            self.live += size
            self.trace.peak_bytes = max(self.trace.peak_bytes, self.live)
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.live -= self.alive.pop(key, 0)


def _channel_dim(op: str, args: Sequence[Any], inputs: Sequence[Node], out: torch.Tensor) -> int | None:
    """Follow the axis of channels through one operation; None where it is lost."""
    source = inputs[0]
    if op.startswith("convolution"):
        return 1
    if op in WEIGHTED:
        return out.dim() - 1
    if op in ("unsqueeze", "squeeze") and len(args) > 1 and isinstance(args[1], int) and source.channel_dim is not None:
        axis = args[1] % max(out.dim(), len(source.shape))
        if axis == source.channel_dim and op == "squeeze":
            return None
        return source.channel_dim + (axis <= source.channel_dim) * (out.dim() - len(source.shape))
    if op in ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "native_group_norm"):
        if tuple(out.shape) == source.shape or op == "native_group_norm":
            return source.channel_dim
        last = source.channel_dim is not None and source.channel_dim == len(source.shape) - 1
        return out.dim() - 1 if last and out.shape[-1] == source.shape[-1] else (1 if _shuffled(source, out) else None)
    if op == "permute" and source.channel_dim is not None:
        order = [d % out.dim() for d in args[1]]
        return order.index(source.channel_dim)
    if op == "transpose" and source.channel_dim is not None:
        a, b = args[1] % out.dim(), args[2] % out.dim()
        return {a: b, b: a}.get(source.channel_dim, source.channel_dim)
    dims = [n.channel_dim for n in inputs if len(n.shape) == out.dim() and n.channel_dim is not None]
    return dims[0] if dims else None


def _shuffled(source: Node, out: torch.Tensor) -> bool:
    """True if a view splits or joins the channels alone, as a channel shuffle does: the space axes stay."""
    space = len(source.space) if source.channel_dim == 1 else 2
    return len(source.shape) > 3 and tuple(out.shape[-space:]) == source.shape[-space:] and out.dim() >= 3


def _shapes_only(name: str, args: Any) -> Any:
    """The result of a few operations on meta tensors, else None.

    torch's own rules for them are Python that loads its compiler, which takes longer than all the rest; what comes out
    is known anyway.
    """
    if not args or not isinstance(args[0], torch.Tensor) or not args[0].is_meta:
        return None
    x = args[0]
    if name == "native_batch_norm" and args[5] is False:
        return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)
    if name in ("add", "mul") and len(args) > 1 and isinstance(args[1], torch.Tensor):
        shape = np.broadcast_shapes(x.shape, args[1].shape)
        return torch.empty(shape, dtype=torch.result_type(x, args[1]), device="meta")
    if name == "addmm":
        return x.new_empty(args[1].shape[0], args[2].shape[1])
    if name == "mean" and len(args) > 1:
        gone = {d % x.dim() for d in args[1]}
        keep = len(args) > 2 and args[2]
        return x.new_empty([1 if d in gone else s for d, s in enumerate(x.shape) if keep or d not in gone])
    if name == "convolution" and not args[6]:
        return _convolution(x, args[1], args[3], args[4], args[5], args[8])
    if name == "max_pool2d_with_indices" and len(args) in (3, 4) and x.dim() == 4:
        return _max_pool(x, args[1], args[2], args[3] if len(args) > 3 else (0, 0))
    return None


def _max_pool(x: torch.Tensor, kernel: Any, stride: Any, padding: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The result of a plain max pooling (no dilation, rounded down), or None for one that cannot be."""
    sizes = zip(x.shape[2:], kernel, stride or kernel, padding, strict=False)
    space = [(size + 2 * p - k) // s + 1 for size, k, s, p in sizes]
    if len(space) != 2 or min(space) < 1:
        return None
    shape = (*x.shape[:2], *space)
    return x.new_empty(shape), torch.empty(shape, dtype=torch.long, device="meta")


def _convolution(
    x: torch.Tensor, weight: torch.Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> torch.Tensor | None:
    """The result of a convolution, or None for one that cannot be (torch then says why)."""
    if not len(weight.shape[2:]) == len(stride) == len(padding) == len(dilation) == x.dim() - 2:
        return None
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    space = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes]
    fits = x.dim() == weight.dim() and x.shape[1] == weight.shape[1] * groups and min(space, default=0) > 0
    return x.new_empty([x.shape[0], weight.shape[0], *space]) if fits and weight.dtype == x.dtype else None


WATCHED = frozenset(
    [
        "native_batch_norm",
        "cudnn_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "native_group_norm",
        "native_layer_norm",
        "upsample_nearest2d",
        "upsample_bilinear2d",
        "grid_sampler_2d",
    ]
)


class _Functions(TorchFunctionMode):
    """Sees global pooling before aten turns it into a mean."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is nn.functional.adaptive_avg_pool2d:
            x = shape_of(args or list((kwargs or {}).values()))
            op = OpCall(self.recorder.path, "adaptive_avg_pool2d", 0, (x,), (), shape_of(out))
            self.recorder.trace.ops.append(op)
        return out


@contextlib.contextmanager
def live_bytes(trace: Trace, known: set[int]) -> Iterator[None]:
    """Record `peak_bytes` of what happens inside; `known`: storages (their `_cdata`) that are not counted."""
    recorder = _Recorder(trace, known)
    recorder.watches_memory = True
    with recorder:
        yield


@contextlib.contextmanager
def _watched(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Hook every module, in eval mode; hooks and modes are put back whatever happens."""
    trace, stack = recorder.trace, recorder.stack
    handles = []
    # Networks keep things of a pass (anchors, sizes) as attributes; those of a pass without data would do harm.
    # The mode is one of them.
    kept = [(module, dict(module.__dict__)) for module in model.modules()]

    def enter(path: str) -> Callable[..., None]:
        return lambda module, args: stack.append(path)

    def leave(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            stack.pop()
            nodes = recorder.find(output) if isinstance(output, torch.Tensor) else ()
            trace.outputs[path] = shape_of(output)
            call = LayerCall(path, module, shape_of(args), shape_of(output), recorder.find(args), *nodes[:1])
            trace.layers.append(call)

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
        for module, attributes in kept:
            module.__dict__.clear()
            module.__dict__.update(attributes)


def run(
    model: nn.Module,
    inputs: Sequence[Any],
    call: Callable[..., Any] | None = None,
    named: Mapping[str, Any] | None = None,
) -> Trace:
    """Run `model` (or `call`) on `inputs` (and `named` ones) in eval mode without gradients and return the trace.

    Raises ExciteError that names the layer in which the forward pass failed. The model's mode and attributes are
    restored.
    """
    named = named or {}
    tensors = list(tensors_in((tuple(inputs), named)))
    first = next((x for x in tensors if x.dim() > 2), tensors[0])
    trace = Trace(input_shape=tuple(first.shape), device=str(first.device))
    recorder = _Recorder(trace)
    for x in tensors:
        recorder.add(x, "input", (), 1)
    try:
        with torch.no_grad(), _watched(model, recorder), _Functions(recorder), recorder:
            trace.results = recorder.find((call or model)(*inputs, **named))
    except ExciteError:
        raise
    except Exception as error:
        kind = type(dict(model.named_modules()).get(recorder.path, model)).__name__
        where = recorder.path or "(top level)"
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExciteError(
            f"forward failed in layer {where!r} ({kind}) on an input of shape {shapes}: {reason}"
        ) from error
    return trace


def run_on_meta(model: nn.Module, shape: Shape, dtype: torch.dtype = torch.float32) -> Trace:
    """Run `model` on an input of `shape` without data and return the trace; its weights stay as and where they are.

    Parameters and buffers are replaced by meta tensors for the call. Raises ExciteError where the forward pass fails,
    also where it needs real numbers.
    """
    return _without_data(model, (torch.empty(shape, device="meta", dtype=dtype),), {})


def run_example(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], data: bool) -> Trace:
    """Run `model` on given arguments, with their data or without, and return the trace. Raises ExciteError."""
    if data:
        return run(model, args, named=kwargs)
    empty = tree_map_only(torch.Tensor, lambda t: torch.empty_like(t, device="meta"), (tuple(args), dict(kwargs)))
    return _without_data(model, *empty)


def _without_data(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Trace:
    empty = empty_tensors(model)
    if all(t.is_meta for t in _own_tensors(model).values()):
        return run(model, args, named=kwargs)

    def call(*args: Any, **kwargs: Any) -> Any:
        # Every place is named, so torch need not look for tied ones; of a module with two names it would lose the data.
        return torch.func.functional_call(model, empty, args, kwargs, tie_weights=False)

    return run(model, args, call, kwargs)


def empty_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return tensors without data for all places that hold one: one for each tensor, though it may have several places.

    For `torch.func.functional_call(model, ..., tie_weights=False)`.
    """
    tensors = _own_tensors(model)
    alike = {id(t): torch.empty_like(t, device="meta", requires_grad=t.requires_grad) for t in tensors.values()}
    return {name: alike[id(t)] for name, t in tensors.items()}


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of every module, each module under its first name, shared tensors each time."""
    return {
        f"{path}.{name}" if path else name: tensor
        for path, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


def run_on_fakes(model: nn.Module, shape: Shape, like: torch.Tensor) -> Trace:
    """Run with fake tensors, which stand for any tensor and know their device (slow to load and seldom needed)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        return run(model, [torch.empty(shape, device=like.device, dtype=like.dtype)])


def run_on_zeros(model: nn.Module, shape: Shape, like: torch.Tensor) -> Trace:
    """Run for real, on zeros of the device and type of `like`."""
    return run(model, [torch.zeros(shape, device=like.device, dtype=like.dtype)])


def trace_model(model: nn.Module, shape: Shape) -> Trace:
    """Run `model` once on an input of `shape` and return the trace; its weights are neither copied nor changed.

    Parameters and buffers are replaced by meta tensors for the call. A network whose forward pass needs real numbers
    runs on its own device. Raises ExciteError that names the layer where the forward pass failed.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    like = next((t for t in tensors.values() if t.is_floating_point()), None)
    if like is None:
        raise UsageError(f"{type(model).__name__} has no parameters: there is nothing to count")
    try:
        return run_on_meta(model, shape, like.dtype)
    except ExciteError as error:
        if any(t.is_meta for t in tensors.values()) or not needs_numbers(error):
            raise
        return run_on_zeros(model, shape, like)


def needs_numbers(error: ExciteError) -> bool:
    """True if a forward pass without data failed for want of data."""
    text = str(error.__cause__ or error)
    return isinstance(error.__cause__, NotImplementedError) or any(word in text for word in META_ERRORS)
