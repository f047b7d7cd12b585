"""Layers for 1-D, 2-D and 3-D maps."""

import math

import torch
import torch.nn.functional as F
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
    kernel_size: int | tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> Conv:
    """Return a convolution over `dims` space axes; odd kernels of stride 1 keep the size.

    kernel_size: of all axes, or one per axis.
    """
    sizes = (kernel_size,) * dims if isinstance(kernel_size, int) else kernel_size
    padding = tuple(dilation * (size - 1) // 2 for size in sizes)
    # The checker wants one tuple length; the three classes each have their own.
    return _CONVS[dims](inputs, outputs, sizes, stride, padding, dilation, groups, bias)  # type: ignore[arg-type]


def batch_norm(dims: int, channels: int, *, momentum: float = 0.1, affine: bool = True) -> BatchNorm:
    """Return a batch norm over `dims` space axes."""
    return _NORMS[dims](channels, momentum=momentum, affine=affine)


def over_space(vector: torch.Tensor, x: FeatureMap) -> torch.Tensor:
    """Return `vector` `[... c]` with one trailing axis per space axis of `x`, ready to broadcast over the map."""
    return vector.reshape(vector.shape + (1,) * (x.dim() - 2))


def adaptive_average(x: FeatureMap, size: int) -> FeatureMap:
    """Return `x` averaged over a grid of `size` cells along every axis, `[n c *(size)]`."""
    pools = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
    pooled: FeatureMap = pools[x.dim() - 2](x, size)
    return pooled


def spread(grid: torch.Tensor, x: FeatureMap) -> torch.Tensor:
    """Return a grid `[n c *cells]` at the size of `x`: position i of s is the mean of cells i g/s to (i + 1) g/s.

    This is adaptive average pooling the other way, as the originals of gsop and mlca do it: where the size is a
    multiple of the grid, every cell is repeated; elsewhere cells that share a position are averaged. Here by running
    sums, which take any size without knowing it beforehand.
    """
    for axis in range(2, x.dim()):
        cells, size = grid.shape[axis], x.shape[axis]
        index = torch.arange(size, device=grid.device)
        first, last = index * cells // size, ((index + 1) * cells + size - 1) // size
        sums = grid.movedim(axis, -1).cumsum(dim=-1)
        sums = F.pad(sums, (1, 0))
        means = (sums[..., last] - sums[..., first]) / (last - first)
        grid = means.movedim(-1, axis)
    return grid


def unbiased_deviation(x: torch.Tensor, dim: int | tuple[int, ...], eps: float = 0.0) -> torch.Tensor:
    """Return the standard deviation over `dim` (variance divided by one less than the count), those axes kept.

    A single element has deviation 0, where torch has nan; eps is added to the variance.
    """
    axes = (dim,) if isinstance(dim, int) else dim
    count = math.prod([x.shape[axis] for axis in axes])
    variance = x.var(dim=axes, correction=0, keepdim=True)
    # sym_max keeps a size that is unknown at export time unknown; to the checker it returns anything.
    unbiased: torch.Tensor = variance * count / torch.sym_max(count - 1, 1)  # type: ignore[assignment]
    return (unbiased + eps).sqrt()
