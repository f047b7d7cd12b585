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


def pays(z: FeatureMap, attention: bool) -> bool:
    """Tell whether the fused tail in plain PyTorch was measured to pay for such a map (benchmarks/free.md)."""
    return z.device.type == "cpu"
