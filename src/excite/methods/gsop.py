"""GSoP: global second-order pooling."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import nn

from excite.common.checks import Dims, Positive, Rule, check_map
from excite.methods.base import Method, Need
from excite.methods.nd import batch_norm, conv
from excite.ops import recalibrate
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap, Weights

Side = Annotated[int, Rule("an integer from 1 to 32", lambda side: 1 <= side <= 32)]
"""Of the grid of positions, whose covariance has the fourth power of it as entries."""

_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def covariance(x: torch.Tensor) -> torch.Tensor:
    """Return the covariance of the rows of `x` `[n d m]` over its m columns, biased, `[n d d]`."""
    centred = x - x.mean(dim=2, keepdim=True)
    return torch.matmul(centred, centred.transpose(1, 2)) / x.shape[2]


class RowGate(nn.Module):
    """Norm, one row-wise grouped convolution, an adapter: `[n d d] -> [n outputs]` before the sigmoid (GSoP, 3.1).

    Each row of the matrix becomes 4 numbers. relu: a rectifier between the two layers (the position variant has one).
    """

    def __init__(self, size: int, outputs: int, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.norm = nn.BatchNorm1d(size)
        self.row = nn.Conv1d(size, 4 * size, size, groups=size)
        self.adapt = nn.Linear(4 * size, outputs)

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return one number per output."""
        rows = self.row(self.norm(matrix.to(self.row.weight.dtype))).squeeze(-1)
        return self.adapt(torch.relu(rows) if self.relu else rows)


class ChannelSecondOrder(nn.Module):
    """Channel weights from the covariance of d reduced channels over the positions, `[n c *space]`."""

    def __init__(self, dims: int, channels: int, reduced: int, stride: int) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.reduce = conv(dims, channels, reduced, 1, stride=stride)
        self.reduce_norm = batch_norm(dims, reduced)
        self.gate = RowGate(reduced, channels, relu=False)

    def _gate(self, reduced: FeatureMap) -> Weights:
        return torch.sigmoid(self.gate(covariance(widen(reduced).flatten(2))))

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` that `x` is multiplied by."""
        check_map("gsop", x, self.channels, self.dims)
        return without_autocast(self._gate, torch.relu(self.reduce_norm(self.reduce(torch.relu(x)))))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return recalibrate(x, self.weights(x))


class PositionSecondOrder(nn.Module):
    """Weights of a coarse grid of positions from their covariance over the d reduced channels, `[n c *space]`."""

    def __init__(self, dims: int, channels: int, reduced: int, stride: int, grid: int) -> None:
        super().__init__()
        self.dims, self.channels, self.grid = dims, channels, (grid,) * dims
        self.reduce = conv(dims, channels, reduced, 1, stride=stride)
        self.reduce_norm = batch_norm(dims, reduced)
        self.gate = RowGate(grid**dims, grid**dims, relu=True)

    def _weights(self, reduced: FeatureMap) -> FeatureMap:
        pooled = _POOLS[self.dims](widen(reduced), self.grid)  # type: ignore[arg-type]
        matrix = covariance(pooled.flatten(2).transpose(1, 2))
        return torch.sigmoid(self.gate(matrix)).reshape(-1, 1, *self.grid)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map weighed position by position, rectified as in the released network."""
        check_map("gsop", x, self.channels, self.dims)
        weights = without_autocast(self._weights, self.reduce_norm(self.reduce(torch.relu(x))))
        return torch.relu(x * F.interpolate(weights, size=x.shape[2:], mode="nearest").to(x.dtype))


def gsop(
    channels: int,
    *,
    mode: Literal["channel", "position"] = "channel",
    reduced: Positive = 128,
    stride: Positive = 1,
    grid: Side = 8,
    dims: Dims = 2,
) -> ChannelSecondOrder | PositionSecondOrder:
    """Build GSoP over `channels` channels.

    mode: weights of channels ("channel") or of positions ("position"); reduced: channels before the covariance;
    stride: of the reduction (the original: 2 in the first stage); grid: side of the grid of positions; dims: space
    axes.
    """
    if mode == "channel":
        return ChannelSecondOrder(dims, channels, reduced, stride)
    return PositionSecondOrder(dims, channels, reduced, stride, grid)


GSOP = Method(
    build=gsop,
    equation="h = relu(norm(conv1(relu(x)))),  w = sigmoid(W row_conv(norm(cov(h)))),  y = w * x",
    paper="Gao, Xie, Wang, Li: Global Second-order Pooling ConvNets, CVPR 2019, arXiv:1811.12006, section 3.1",
    needs=(Need(("grid",), "unless mode='position'", lambda o: o["mode"] == "position"),),
)
