"""Which kernels the fused tail runs on, for a map on a device."""

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from excite.ops.mode import mode
from excite.types import FeatureMap


@cache
def _triton_ready(index: int) -> bool:
    return find_spec("triton") is not None and torch.cuda.get_device_capability(index) >= (7, 0)


def kernels_for(z: FeatureMap, attention: bool) -> ModuleType | None:
    """Return the module with the passes for `z`, or None where the fused tail is not to run.

    attention: whether the tail has attention.
    """
    if type(z) is not torch.Tensor:
        return None
    if z.device.type == "cuda" and _triton_ready(z.device.index):
        from excite.ops import kernels_triton

        return kernels_triton
    if mode() == "auto" and not pays(z, attention):
        return None
    from excite.ops import kernels_torch

    return kernels_torch


# Measured on two cores (docs/free.md): the small graph between the passes costs half a millisecond, which a map of
# these bytes earns back. A plain tail saves passes only where torch's own batch norm is slow, in NCHW.
TRAINING_BYTES, INFERENCE_BYTES, PLAIN_BYTES = 2 << 20, 8 << 20, 8 << 20


def pays(z: FeatureMap, attention: bool) -> bool:
    """Tell whether the fused tail in plain PyTorch was measured to pay, in time or memory, for such a map on a CPU."""
    if z.device.type != "cpu":
        return False
    size = z.numel() * z.element_size()
    if not attention:
        return torch.is_grad_enabled() and z.is_contiguous() and size >= PLAIN_BYTES
    return size >= (TRAINING_BYTES if torch.is_grad_enabled() else INFERENCE_BYTES)
