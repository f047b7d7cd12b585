"""Run a network once, normally on the meta device, and write down what it did.

Three levels are watched, because the published counters look at three levels: calls of leaf modules (thop, mmcv), aten
operations (torch's flop counter, fvcore) and two functions that aten splits up (fvcore).
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from excite.errors import ExciteError


@dataclass(frozen=True)
class LayerCall:
    """One call of one module: its path, the module, shapes of the first input and of the output."""

    path: str
    module: nn.Module
    x: tuple[int, ...]
    y: tuple[int, ...]


@dataclass(frozen=True)
class OpCall:
    """One aten operation (or named function): the path of the module that called it, its name and arguments' shapes.

    macs: multiply-accumulates (convolutions and matrix products, else 0); shapes: one per argument, None where the
    argument is no tensor; y: output shape.
    """

    path: str
    name: str
    macs: int
    shapes: tuple[tuple[int, ...] | None, ...]
    flags: tuple[Any, ...]
    y: tuple[int, ...]


@dataclass
class Trace:
    """What one forward pass did. `peak_bytes`: most bytes of intermediate tensors alive at one time."""

    layers: list[LayerCall] = field(default_factory=list)
    ops: list[OpCall] = field(default_factory=list)
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    peak_bytes: int = 0
    device: str = "meta"


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, or of the first tensor in a container; () where there is none."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    items: Sequence[Any] = list(value.values()) if isinstance(value, dict) else value if _is_sequence(value) else ()
    for item in items:
        if shape := shape_of(item):
            return shape
    return ()


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


class _Ops(TorchDispatchMode):
    """Counts aten operations and follows the life of every intermediate storage."""

    def __init__(self, trace: Trace, where: Callable[[], str], known: set[int] | None = None) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.trace, self.where, self.flops = trace, where, flop_registry
        self.alive: dict[int, int] = dict.fromkeys(known or (), 0)
        self.live = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True would guard every operation against the compiler, and load the compiler (seconds) to do so.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        out = _shapes_only(name, args)
        if out is None:
            out = func(*args, **kwargs)
        flops = self.flops.get(func._overloadpacket)
        if flops is not None or name in WATCHED:
            macs = int(flops(*args, **kwargs, out_val=out)) // 2 if flops is not None else 0
            shapes = tuple(tuple(a.shape) if isinstance(a, torch.Tensor) else None for a in args)
            flags = tuple(a for a in args if isinstance(a, bool))
            self.trace.ops.append(OpCall(self.where(), name, macs, shapes, flags, shape_of(out)))
        self._follow(out)
        return out

    def _follow(self, out: Any) -> None:
        for item in out if _is_sequence(out) else (out,):
            if not isinstance(item, torch.Tensor) or item.layout != torch.strided:
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

    def __init__(self, trace: Trace, where: Callable[[], str]) -> None:
        super().__init__()
        self.trace, self.where = trace, where

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is nn.functional.adaptive_avg_pool2d:
            x = shape_of(args or list((kwargs or {}).values()))
            self.trace.ops.append(OpCall(self.where(), "adaptive_avg_pool2d", 0, (x,), (), shape_of(out)))
        return out


@contextlib.contextmanager
def live_bytes(trace: Trace, known: set[int]) -> Iterator[None]:
    """Record `peak_bytes` of what happens inside; `known`: storages (their `_cdata`) that are not counted."""
    with _Ops(trace, lambda: "", known):
        yield


@contextlib.contextmanager
def watch(model: nn.Module, trace: Trace) -> Iterator[list[str]]:
    """Record into `trace` what happens inside; yields the stack of module paths (its last entry is running now)."""
    stack: list[str] = [""]
    handles = []

    def enter(path: str) -> Callable[..., None]:
        return lambda module, args: stack.append(path)

    def leave(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            stack.pop()
            trace.outputs[path] = shape_of(output)
            trace.layers.append(LayerCall(path, module, shape_of(args), shape_of(output)))

        return hook

    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path)))
        handles.append(module.register_forward_hook(leave(path)))
    try:
        with _Functions(trace, lambda: stack[-1]), _Ops(trace, lambda: stack[-1]):
            yield stack
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, inputs: Sequence[torch.Tensor], call: Callable[..., Any] | None = None) -> Trace:
    """Run `model` (or `call`) on `inputs` in eval mode without gradients and return the trace.

    Raises ExciteError that names the layer in which the forward pass failed. The model's mode is restored.
    """
    trace = Trace(device=str(inputs[0].device))
    training = {m: m.training for m in model.modules()}
    model.eval()
    stack: list[str] = [""]
    try:
        with torch.no_grad(), watch(model, trace) as stack:
            (call or model)(*inputs)
    except ExciteError:
        raise
    except Exception as error:
        where = stack[-1] or "(top level)"
        kind = type(dict(model.named_modules()).get(stack[-1], model)).__name__
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExciteError(
            f"forward failed in layer {where!r} ({kind}) on an input of shape {shapes}: {reason}"
        ) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    return trace
