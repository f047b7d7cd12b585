"""Layers for 1-D, 2-D and 3-D maps."""

import torch
from torch import nn

from excite.types import FeatureMap

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_CONVS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, type[nn.BatchNorm1d] | type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def conv(
    dims: int,
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> Conv:
    """Return a convolution over `dims` space axes; odd kernels of stride 1 keep the size."""
    padding = dilation * (kernel_size - 1) // 2
    return _CONVS[dims](inputs, outputs, kernel_size, stride, padding, dilation, groups, bias)


def batch_norm(dims: int, channels: int, *, momentum: float = 0.1, affine: bool = True) -> BatchNorm:
    """Return a batch norm over `dims` space axes."""
    return _NORMS[dims](channels, momentum=momentum, affine=affine)


def over_space(vector: torch.Tensor, x: FeatureMap) -> torch.Tensor:
    """Return `vector` `[... c]` with one trailing axis per space axis of `x`, ready to broadcast over the map."""
    return vector.reshape(vector.shape + (1,) * (x.dim() - 2))
