"""Which kernels the fused tail runs on, for a map on a device."""

from functools import cache
from importlib.util import find_spec

import torch

from excite.ops.kernels import Kernels
from excite.ops.mode import mode
from excite.types import FeatureMap


@cache
def _triton(index: int) -> Kernels | None:
    if find_spec("triton") is None or torch.cuda.get_device_capability(index) < (7, 0):
        return None
    from excite.ops import kernels_triton

    return Kernels(kernels_triton)


@cache
def native() -> Kernels | str:
    """Return the C kernels, built at the first call, or why there are none."""
    from excite.ops.native import build

    found = build.found()
    if isinstance(found, str):
        return found
    from excite.ops.kernels_native import NativeKernels

    return NativeKernels(found)


@cache
def _plain() -> Kernels:
    from excite.ops import kernels_torch

    return Kernels(kernels_torch)


def kernels_for(z: FeatureMap, attention: bool) -> Kernels | None:
    """Return the kernels for `z`, or None where the fused tail is not to run.

    attention: whether the tail has attention.
    """
    if type(z) is not torch.Tensor:
        return None
    if z.device.type == "cuda" and (found := _triton(z.device.index)):
        return found
    forced = mode() == "fused"
    made = native() if z.device.type == "cpu" and z.dtype != torch.float16 else ""
    if isinstance(made, Kernels):
        return made if forced or native_pays(z, attention) else None
    return _plain() if forced or pays(z, attention) else None


def native_pays(z: FeatureMap, attention: bool) -> bool:
    """Tell whether the fused tail in C was measured to pay for such a map (benchmarks/tail.py, two cores)."""
    size = z.numel() * z.element_size()
    if attention:
        return size >= 1 << 18
    if not torch.is_grad_enabled():
        return size >= 1 << 20
    return size >= (3 << 20 if z.is_contiguous() else 6 << 20)


# Measured on two cores (docs/free.md): in PyTorch the small graph between the passes costs half a millisecond, which a
# map of these bytes earns back. A plain tail saves passes only where torch's own batch norm is slow, in NCHW.
TRAINING_BYTES, INFERENCE_BYTES, PLAIN_BYTES = 2 << 20, 8 << 20, 8 << 20


def pays(z: FeatureMap, attention: bool) -> bool:
    """Tell whether the fused tail in plain PyTorch was measured to pay, in time or memory, for such a map on a CPU."""
    if z.device.type != "cpu":
        return False
    size = z.numel() * z.element_size()
    if not attention:
        return torch.is_grad_enabled() and z.is_contiguous() and size >= PLAIN_BYTES
    return size >= (TRAINING_BYTES if torch.is_grad_enabled() else INFERENCE_BYTES)
