"""Where the fused tail is exact; everywhere else the modules run one after another."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as module_hooks

from excite.types import FeatureMap

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TRANSFORMED = "the program is being compiled, exported, traced or transformed"
T = TypeVar("T", bound=type)
_factored: set[type] = set()


def factored(kind: T) -> T:
    """Declare (as a class decorator) that `forward(x)` is `recalibrate(x, self.gate(self.squeeze(x)))` and no more.

    To be fused the squeeze must have `from_statistics(mean, variance, count)` or `from_moments(sum_x, sum_x2, count)`.
    Subclasses are not included: they may override anything.
    """
    _factored.add(kind)
    return kind


def is_hooked(module: nn.Module) -> bool:
    """Tell whether somebody watches the calls of `module` itself (not of its children)."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _globally_hooked() -> bool:
    return bool(
        module_hooks._global_forward_hooks
        or module_hooks._global_forward_pre_hooks
        or module_hooks._global_backward_hooks
        or module_hooks._global_backward_pre_hooks
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
    )


def why_not(z: FeatureMap, norm: nn.Module, attention: nn.Module | None, shortcut: FeatureMap | None) -> str | None:
    """Return why `residual_tail` runs module by module here, or None where the fused form is exact."""
    if is_transformed():
        return TRANSFORMED
    return _unfit_tensors(z, shortcut) or _unfit_norm(z, norm) or _unfit_attention(attention, z)


def _unfit_tensors(z: FeatureMap, shortcut: FeatureMap | None) -> str | None:
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


def _unfit_norm(z: FeatureMap, norm: Any) -> str | None:
    if type(norm) not in NORMS:
        return f"the norm is a {type(norm).__name__}"
    if is_hooked(norm) or _globally_hooked():
        return "the norm is hooked"
    if NORMS.index(type(norm)) + 3 != z.dim() or norm.num_features != z.shape[1]:
        return f"the norm does not fit a map of shape {tuple(z.shape)}"
    if (norm.running_mean is None) != (norm.running_var is None):
        return "the norm has half of its running statistics"
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is not None and (tensor.device != z.device or tensor.is_meta or not tensor.is_floating_point()):
            return "the norm lies elsewhere"
        if tensor is not None and tensor.numel() != z.shape[1]:
            return "the norm's tensors do not fit its number of features"
    if norm.training and z.shape[0] * z[0, 0].numel() <= 1:
        return "one value per channel has no variance"
    return None


def why_not_alone(x: FeatureMap, attention: nn.Module) -> str | None:
    """Return the same for `attend`."""
    if is_transformed():
        return TRANSFORMED
    if type(attention) not in _factored:
        return f"{type(attention).__name__} is no squeeze and gate"
    return _unfit_tensors(x, None) or _unfit_squeeze(attention.squeeze, x)  # type: ignore[arg-type]


def why_not_described(z: FeatureMap, norm: nn.Module, squeeze: nn.Module, shortcut: FeatureMap | None) -> str | None:
    """Return the same for `described_tail`."""
    if is_transformed():
        return TRANSFORMED
    return _unfit_tensors(z, shortcut) or _unfit_norm(z, norm) or _unfit_squeeze(squeeze, z)


def _unfit_attention(attention: nn.Module | None, z: FeatureMap) -> str | None:
    if attention is None:
        return None
    if is_hooked(attention):
        return "the attention is hooked; hooks on its gate are fine"
    if type(attention) is nn.Identity:
        return None
    if type(attention) not in _factored:
        return f"{type(attention).__name__} is no squeeze and gate"
    return _unfit_squeeze(attention.squeeze, z)  # type: ignore[arg-type]


def _unfit_squeeze(squeeze: nn.Module, z: FeatureMap) -> str | None:
    if is_hooked(squeeze):
        return "the squeeze is hooked; hooks on the gate are fine"
    if next(squeeze.parameters(), None) is not None:
        return f"the squeeze {type(squeeze).__name__} learns"
    if hasattr(squeeze, "from_projection"):
        fits = squeeze.projects(tuple(z.shape[2:]))  # type: ignore[operator]
        return None if fits else "the squeeze resamples maps of this size"
    if not hasattr(squeeze, "from_statistics") and not hasattr(squeeze, "from_moments"):
        return f"the squeeze {type(squeeze).__name__} does not follow from moments"
    return None
