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


def kernels_on(device: str) -> str:
    """Return on what the fused tail runs on a device ("cpu", "cuda:0"): "Triton", "C", or "PyTorch" and why not C."""
    place = torch.device(device)
    if place.type == "cuda":
        return "Triton" if _triton(place.index or 0) else "PyTorch: Triton or compute capability 7.0 is missing"
    made = native() if place.type == "cpu" else f"no kernels for {place.type}"
    return "C" if isinstance(made, Kernels) else f"PyTorch: {made}"


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


def kernels_alone(x: FeatureMap) -> Kernels | None:
    """Return the kernels for attention that stands alone; only the ones in C are known to pay there."""
    how = mode()
    if how == "fused":
        return kernels_for(x, True)
    if type(x) is not torch.Tensor or how == "reference" or x.device.type != "cpu" or x.dtype == torch.float16:
        return None
    if x.numel() * x.element_size() < (NATIVE_BYTES if torch.is_grad_enabled() else NATIVE_INFERENCE_BYTES):
        return None
    made = native()
    return made if isinstance(made, Kernels) else None


def kernels_inside(z: FeatureMap) -> Kernels | None:
    """Return the kernels for a norm and rectifier inside a block; only the ones in C are known to pay there."""
    how = mode()
    if how == "fused":
        return kernels_for(z, False)
    if type(z) is not torch.Tensor or how == "reference":
        return None
    training = torch.is_grad_enabled()
    if z.numel() * z.element_size() < (INSIDE_TRAINING_BYTES if training else INSIDE_INFERENCE_BYTES):
        return None
    if z.device.type != "cpu" or z.dtype == torch.float16 or (training and not z.is_contiguous()):
        return None
    made = native()
    return made if isinstance(made, Kernels) else None


# Measured on two cores (benchmarks/tail.py, and in whole networks, where the calls cost more than in a loop). In
# channels-last training torch's own batch norm is as fast as a norm in C with nothing behind it but a rectifier.
NATIVE_BYTES, NATIVE_PLAIN_BYTES, NATIVE_INFERENCE_BYTES = 1 << 19, 3 << 20, 4 << 20
INSIDE_TRAINING_BYTES, INSIDE_INFERENCE_BYTES = 2 << 20, 16 << 20


def native_pays(z: FeatureMap, attention: bool) -> bool:
    """Tell whether the fused tail in C was measured to pay for such a map on a CPU."""
    size = z.numel() * z.element_size()
    if not torch.is_grad_enabled():
        return size >= NATIVE_INFERENCE_BYTES
    if attention:
        return size >= NATIVE_BYTES
    return size >= (NATIVE_PLAIN_BYTES if z.is_contiguous() else 2 * NATIVE_PLAIN_BYTES)


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
