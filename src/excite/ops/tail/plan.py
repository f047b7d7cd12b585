"""Which kernels run a part of a network, and if none, why not: one request, one answer.

Fusing must be exact, and in mode "auto" it must have been measured to pay; else the modules run one after another.
"""

import math
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as dispatch_modes

from excite.ops.mode import mode
from excite.ops.tail.kernels import Kernels
from excite.types import FeatureMap

if TYPE_CHECKING:
    from excite.ops.tail.native.launch import NativeKernels

# Any: it asks of any object whether it is what can be fused.

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MIB, NEVER = 1 << 20, 1 << 62
T = TypeVar("T", bound=type)
Form = Literal["mean", "mean and deviation", "correlation", "bottleneck", "style"]
_factored: set[type] = set()
_forms: dict[type, Form] = {}


class Part(NamedTuple):
    """From how many bytes of its map a part was measured to pay on a CPU, in C and in plain PyTorch.

    Each is (training in NCHW, training in NHWC, inference). gpu: whether Triton takes it, whatever its size.
    """

    native: tuple[int, int, int]
    plain: tuple[int, int, int]
    gpu: bool


# Measured on two cores (benchmarks/tail.py, and in whole networks, where calls cost more than in a loop). In PyTorch
# the numbers between the passes cost half a millisecond. In NHWC torch's own batch norm is fast: without attention
# there is little to save, and nothing where only a rectifier follows.
ATTENTION = Part((MIB // 2, MIB // 2, MIB // 8), (2 * MIB, 2 * MIB, 8 * MIB), gpu=True)
PLAIN = Part((3 * MIB, 6 * MIB, MIB), (8 * MIB, NEVER, NEVER), gpu=True)
INSIDE = Part((2 * MIB, NEVER, 16 * MIB), (NEVER, NEVER, NEVER), gpu=False)
CARRIED = Part((MIB // 4, MIB // 4, MIB // 8), (2 * MIB, 2 * MIB, 8 * MIB), gpu=True)
ALONE = Part((MIB // 2, MIB // 2, 4 * MIB), (NEVER, NEVER, NEVER), gpu=False)
# With a gate that the tail does itself (`gated.py`), by its form.
GATED: dict[Form, Part] = {
    "correlation": Part((MIB // 32, MIB // 32, MIB // 32), (2 * MIB, 2 * MIB, 8 * MIB), gpu=True),
    "bottleneck": Part((MIB // 16, MIB // 16, MIB // 8), (2 * MIB, 2 * MIB, 8 * MIB), gpu=True),
    "style": Part((MIB // 32, MIB // 32, MIB // 32), (2 * MIB, 2 * MIB, 8 * MIB), gpu=True),
}
# The same, where attention stands alone.
GATED_ALONE: dict[Form, Part] = {
    "correlation": Part((MIB // 32, MIB // 32, MIB // 32), (NEVER, NEVER, NEVER), gpu=False),
    "bottleneck": Part((MIB // 4, MIB // 4, 4 * MIB), (NEVER, NEVER, NEVER), gpu=False),
    "style": Part((MIB // 32, MIB // 32, MIB // 32), (NEVER, NEVER, NEVER), gpu=False),
}


# Where the operators pay in compiled programs: on a CPU the compiler does as well (benchmarks/compiled.py).
COMPILED = ("cuda",)


class Request(NamedTuple):
    """What may be fused: a map `z` with what follows it.

    part: which of the above. norm: None where attention stands alone. attention: a squeeze and gate in one module;
    squeeze: alone, where the caller knows the gate. Either may be None. kind: the norm's class, where it carries the
    attention itself and asks from within its own call (which its hooks enclose).
    """

    part: Part
    z: FeatureMap
    norm: nn.Module | None = None
    attention: nn.Module | None = None
    squeeze: nn.Module | None = None
    shortcut: FeatureMap | None = None
    kind: type | None = None


class Plan(NamedTuple):
    """The kernels that run a request; or None, and the reason why the modules run one after another."""

    kernels: Kernels | None
    reason: str | None


class Traced(Kernels):
    """Stands for the operators of `operators.py`, which choose their kernels when they run."""

    ceilings = (math.inf,)

    def __init__(self) -> None:
        pass


TRACED = Traced()
TRANSFORMED = Plan(None, "the program is being compiled, exported, traced or transformed")
REFERENCE = Plan(None, "the mode is 'reference'")
UNPAID = Plan(None, "fusing was not measured to pay for maps of this size here; excite.ops.use('fused') fuses them too")


def plan(request: Request, how: str | None = None) -> Plan:
    """Return the kernels that run the request, or why none do.

    how: the mode, None for the one in force (`excite.ops.use`). A compiler sees operators (`operators.py`) where they
    pay, else plain operations, and no guards on them.
    """
    if torch.compiler.is_compiling():
        return Plan(TRACED, None) if _is_traced(request) else TRANSFORMED
    how = mode() if how is None else how
    if how == "reference":
        return REFERENCE
    # Most maps are small: the cheapest question comes first.
    kernels = _paying(request.z, request.part, how == "fused")
    if kernels is None:
        return UNPAID
    if is_transformed():
        return TRANSFORMED
    reason = _unfit(request)
    return Plan(kernels, None) if reason is None else Plan(None, reason)


def why_not(z: FeatureMap, norm: nn.Module, attention: nn.Module | None, shortcut: FeatureMap | None) -> str | None:
    """Return why `residual_tail` cannot run as one operation here, or None where the fused form is exact.

    Whether an exact form also pays is not asked (see `use`).
    """
    return plan(Request(ATTENTION, z, norm, attention, shortcut=shortcut), "fused").reason


def kernels_on(device: str) -> str:
    """Return on what the fused tail runs on a device ("cpu", "cuda:0"): "Triton", "C", or "PyTorch" and why not C."""
    place = torch.device(device)
    if place.type == "cuda":
        return "Triton" if _triton(place.index or 0) else "PyTorch: Triton or compute capability 7.0 is missing"
    if place.type != "cpu":
        return f"PyTorch: no kernels for {place.type}"
    from excite.ops.tail.native import build

    library = build.found()
    return f"PyTorch: {library}" if isinstance(library, str) else "C"


@cache
def native() -> "NativeKernels | None":
    """Return the C kernels, built at the first call, or None where there are none (`kernels_on` says why)."""
    from excite.ops.tail.native import build

    library = build.found()
    if isinstance(library, str):
        return None
    from excite.ops.tail.native.launch import NativeKernels

    return NativeKernels(library)


@cache
def _triton(index: int) -> Kernels | None:
    if find_spec("triton") is None or torch.cuda.get_device_capability(index) < (7, 0):
        return None
    from excite.ops.tail import triton

    return Kernels(triton)


@cache
def _plain() -> Kernels:
    from excite.ops.tail import torch as passes

    return Kernels(passes)


def fastest(z: FeatureMap) -> Kernels:
    """Return the fastest kernels that there are for a map, whatever pays."""
    kernels = _paying(z, ATTENTION, True)
    assert kernels is not None
    return kernels


def _is_traced(request: Request) -> bool:
    # Whether a compiled program holds the operators: in training, where attention needs moments alone.
    norm, squeeze = request.norm, request.squeeze
    if norm is None or not norm.training or not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return False
    how = mode()
    if how == "reference" or (how == "auto" and request.z.device.type not in COMPILED):
        return False
    if request.attention is not None:
        if type(request.attention) not in _factored:
            return False
        squeeze = request.attention._modules["squeeze"]
    if squeeze is None or not hasattr(type(squeeze), "from_statistics") or hasattr(type(squeeze), "from_projection"):
        return False
    return _unfit(request) is None


def _paying(z: FeatureMap, part: Part, forced: bool) -> Kernels | None:
    # The fastest kernels for this map where they were measured to pay, or at all (forced).
    if z.device.type == "cuda" and (forced or part.gpu) and (kernels := _triton(z.device.index)):
        return kernels
    size, case = z.numel() * z.element_size(), 2
    if torch.is_grad_enabled():
        case = 0 if z.is_contiguous() else 1
    on_cpu = z.device.type == "cpu"
    if (forced or size >= part.native[case]) and on_cpu and z.dtype != torch.float16 and (in_c := native()):
        return in_c
    return _plain() if forced or (on_cpu and size >= part.plain[case]) else None


def factored(kind: T) -> T:
    """Declare (as a class decorator) that `forward(x)` is `recalibrate(x, self.gate(self.squeeze(x)))` and no more.

    To be fused the squeeze must have `from_statistics(mean, variance, count)` or `from_projection(sums)`.
    Subclasses are not included: they may override anything.
    """
    _factored.add(kind)
    return kind


def known(form: Form) -> Callable[[T], T]:
    """Declare (as a class decorator) that a squeeze or gate computes just this, so that the tail can do it itself.

    "mean", "mean and deviation": of every channel. "correlation": `sigmoid(conv(s))` along the channels; "bottleneck":
    `sigmoid(expand(relu(reduce(s))))`; "style": `sigmoid(bn(sum_k cfc_k s_k))`; the names are those of the parts.
    Subclasses are not included.
    """

    def declare(kind: T) -> T:
        _forms[kind] = form
        return kind

    return declare


def form_of(module: nn.Module | None) -> Form | None:
    """Return what a squeeze or gate computes, where that is declared and nobody watches it."""
    form = _forms.get(type(module))
    return None if form is None or module is None or is_hooked(module) else form


def is_hooked(module: nn.Module) -> bool:
    """Tell whether somebody watches the calls of `module` itself (not of its children)."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_globally_hooked() -> bool:
    """Tell whether somebody watches the calls of every module."""
    return bool(
        module_hooks._global_forward_hooks
        or module_hooks._global_forward_pre_hooks
        or module_hooks._global_backward_hooks
        or module_hooks._global_backward_pre_hooks
    )


def is_unwatched(attention: nn.Module) -> bool:
    """Tell whether `attention` is a squeeze and gate and nobody sees the map that it is given."""
    return (
        type(attention) in _factored and not is_hooked(attention) and not is_hooked(attention.get_submodule("squeeze"))
    )


def ceiling_of(act: Callable[..., Any] | None) -> float | None:
    """Return where `act` stops growing if it is a plain ReLU (infinity) or ReLU6 (6) that nobody watches, else None."""
    if act is F.relu or act is torch.relu or (type(act) is nn.ReLU and not is_hooked(act)):
        return math.inf
    return 6.0 if type(act) is nn.ReLU6 and not is_hooked(act) else None


def is_transformed() -> bool:
    """Tell whether something traces or transforms the program: it must see plain operations."""
    return (
        torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or (torch._C._len_torch_dispatch_stack() > 0 and not all(map(_watches_memory, dispatch_modes())))
    )


def _watches_memory(dispatch_mode: object) -> bool:
    """Tell whether a mode only follows storages, and so wants to see what the kernels allocate."""
    return bool(getattr(dispatch_mode, "watches_memory", False))


def _unfit(request: Request) -> str | None:
    return _unfit_map(request.z, request.shortcut) or _unfit_norm(request) or _unfit_attention(request)


def _unfit_map(z: FeatureMap, shortcut: FeatureMap | None) -> str | None:
    if type(z) is not torch.Tensor or z.device.type not in ("cpu", "cuda"):
        return f"the map is a {type(z).__name__} on {getattr(z, 'device', 'no device')}"
    if z.dtype not in DTYPES or z.dim() not in (3, 4, 5) or z.numel() == 0:
        return f"the map is {z.dtype} of shape {tuple(z.shape)}"
    if not _is_dense(z):
        return "the map is neither contiguous nor channels-last"
    if shortcut is None:
        return None
    same = shortcut.shape == z.shape and shortcut.dtype == z.dtype and shortcut.device == z.device
    return None if same and type(shortcut) is torch.Tensor else "the shortcut differs in shape, type or device"


def _is_dense(z: FeatureMap) -> bool:
    if z.is_contiguous():
        return True
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(z.dim())
    return last is not None and z.is_contiguous(memory_format=last)


def _unfit_norm(request: Request) -> str | None:
    z: FeatureMap = request.z
    norm: Any = request.norm
    if norm is None:
        return None
    kind = request.kind or type(norm)
    dims = _norm_dims(norm, kind)
    if dims is None:
        return f"the norm is a {kind.__name__}"
    if (request.kind is None and is_hooked(norm)) or is_globally_hooked():
        return "the norm is hooked"
    if dims != z.dim() or norm.num_features != z.shape[1]:
        return f"the norm does not fit a map of shape {tuple(z.shape)}"
    if (norm.running_mean is None) != (norm.running_var is None):
        return "the norm has half of its running statistics"
    channels, device = z.shape[1], z.device
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is None:
            continue
        if tensor.device != device or not tensor.is_floating_point():
            return "the norm lies elsewhere"
        if tensor.numel() != channels:
            return "the norm's tensors do not fit its number of features"
    if norm.training and norm.running_mean is not None and not norm.track_running_stats:
        return "the norm has running statistics that it does not track"
    if norm.training and z.shape[0] * z[0, 0].numel() <= 1:
        return "one value per channel has no variance"
    return None


def _norm_dims(norm: Any, kind: type) -> int | None:
    # The axes of a map of a plain batch norm, None for others. The very classes: a subclass may override anything, and
    # SyncBatchNorm takes its statistics from all processes. timm's norms with an activation are plain without one.
    if kind in NORMS:
        return NORMS.index(kind) + 3
    if (kind.__module__, kind.__name__) != ("timm.layers.norm_act", "BatchNormAct2d"):
        return None
    return 4 if all(type(part) is nn.Identity and not is_hooked(part) for part in (norm.drop, norm.act)) else None


def _unfit_attention(request: Request) -> str | None:
    attention, squeeze = request.attention, request.squeeze
    if attention is not None:
        # Attention that stands alone asks from within its own call, which hooks enclose.
        if request.norm is not None and is_hooked(attention):
            return "the attention is hooked; hooks on its gate are fine"
        if type(attention) is nn.Identity:
            return None
        if type(attention) not in _factored:
            return f"{type(attention).__name__} is no squeeze and gate"
        squeeze = attention._modules["squeeze"]
    return None if squeeze is None else _unfit_squeeze(squeeze, request.z)


def _unfit_squeeze(squeeze: Any, z: FeatureMap) -> str | None:
    if is_hooked(squeeze):
        return "the squeeze is hooked; hooks on the gate are fine"
    if (squeeze._parameters or squeeze._modules) and next(squeeze.parameters(), None) is not None:
        return f"the squeeze {type(squeeze).__name__} learns"
    kind = type(squeeze)  # a module without an attribute takes long to say so
    if hasattr(kind, "from_projection"):
        return None if squeeze.projects(tuple(z.shape[2:])) else "the squeeze resamples maps of this size"
    if not hasattr(kind, "from_statistics"):
        return f"the squeeze {kind.__name__} does not follow from moments"
    return None
