"""Which kernels a fused part runs on, for a map on a device, and from which size on it is fused at all."""

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import torch

from excite.ops.kernels import Kernels
from excite.ops.mode import mode
from excite.types import FeatureMap

if TYPE_CHECKING:
    from excite.ops.kernels_native import NativeKernels

MIB, NEVER = 1 << 20, 1 << 62


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
ATTENTION = Part((MIB // 2, MIB // 2, 4 * MIB), (2 * MIB, 2 * MIB, 8 * MIB), gpu=True)
PLAIN = Part((3 * MIB, 6 * MIB, 4 * MIB), (8 * MIB, NEVER, NEVER), gpu=True)
INSIDE = Part((2 * MIB, NEVER, 16 * MIB), (NEVER, NEVER, NEVER), gpu=False)
ALONE = Part((MIB // 2, MIB // 2, 4 * MIB), (NEVER, NEVER, NEVER), gpu=False)


@cache
def _triton(index: int) -> Kernels | None:
    if find_spec("triton") is None or torch.cuda.get_device_capability(index) < (7, 0):
        return None
    from excite.ops import kernels_triton

    return Kernels(kernels_triton)


@cache
def native() -> "NativeKernels | None":
    """Return the C kernels, built at the first call, or None where there are none (`kernels_on` says why)."""
    from excite.ops.native import build

    found = build.found()
    if isinstance(found, str):
        return None
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
    if place.type != "cpu":
        return f"PyTorch: no kernels for {place.type}"
    from excite.ops.native import build

    found = build.found()
    return f"PyTorch: {found}" if isinstance(found, str) else "C"


def kernels_for(z: FeatureMap, part: Part) -> Kernels | None:
    """Return the kernels for a part (ATTENTION: a tail with it) of the map `z`, or None where it is not fused."""
    how = mode()
    if how == "reference" or type(z) is not torch.Tensor:
        return None
    forced = how == "fused"
    if z.device.type == "cuda" and (forced or part.gpu) and (found := _triton(z.device.index)):
        return found
    # Most maps are small: the cheapest question comes first.
    size, case = z.numel() * z.element_size(), 2
    if torch.is_grad_enabled():
        case = 0 if z.is_contiguous() else 1
    on_cpu = z.device.type == "cpu"
    if (forced or size >= part.native[case]) and on_cpu and z.dtype != torch.float16 and (made := native()):
        return made
    return _plain() if forced or (on_cpu and size >= part.plain[case]) else None
