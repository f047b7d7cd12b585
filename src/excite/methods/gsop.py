"""GSoP: global second-order pooling."""

import math
from typing import Annotated, Literal

import torch
from torch import nn

from excite.common.checks import Dims, Positive, Rule, check_map
from excite.errors import UsageError
from excite.methods.base import Method, Need
from excite.methods.nd import adaptive_average, batch_norm, conv, spread
from excite.ops import recalibrate
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap, Weights

Side = Annotated[int, Rule("an integer from 1 to 32", lambda side: 1 <= side <= 32)]
"""Of the grid of positions, whose covariance has the fourth power of it as entries."""


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
    """Weights of a coarse grid of M positions from their products over the d reduced channels, `[n c *space]`.

    The matrix `x^T x / M - s s^T / M^2`, s the sum over channels, is a covariance only where d = M (64): the released
    code divides by the number of positions, not of channels. The weights are brought to the map's size by `spread`.
    """

    def __init__(self, dims: int, channels: int, reduced: int, stride: int, grid: int) -> None:
        super().__init__()
        self.dims, self.channels, self.grid = dims, channels, grid
        self.reduce = conv(dims, channels, reduced, 1, stride=stride)
        self.reduce_norm = batch_norm(dims, reduced)
        self.gate = RowGate(grid**dims, grid**dims, relu=True)

    def _weights(self, reduced: FeatureMap, x: FeatureMap) -> FeatureMap:
        pooled = adaptive_average(widen(reduced), self.grid).flatten(2)
        total, m = pooled.sum(dim=1, keepdim=True), pooled.shape[2]
        matrix = torch.matmul(pooled.transpose(1, 2), pooled) / m - torch.matmul(total.transpose(1, 2), total) / m**2
        weights = torch.sigmoid(self.gate(matrix)).reshape(-1, 1, *(self.grid,) * self.dims)
        return spread(weights, x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map weighed position by position, rectified as in the released network."""
        check_map("gsop", x, self.channels, self.dims)
        reduced = self.reduce_norm(self.reduce(torch.relu(x)))
        weights: FeatureMap = without_autocast(self._weights, reduced, x)
        return torch.relu(x * weights.to(x.dtype))


class FusedSecondOrder(nn.Module):
    """Sum or maximum of the maps of the channel and the position attention, `[n c *space]` (GSoP, section 3)."""

    def __init__(self, channel: ChannelSecondOrder, position: PositionSecondOrder, fusion: str) -> None:
        super().__init__()
        self.channel, self.position, self.fusion = channel, position, fusion

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` of the channel attention; the position attention's map is added or competes."""
        return self.channel.weights(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the fused map."""
        by_channel, by_position = self.channel(x), self.position(x)
        return by_channel + by_position if self.fusion == "sum" else torch.maximum(by_channel, by_position)


class ConcatSecondOrder(nn.Module):
    """Both attended maps, each through a grouped convolution along the first space axis, added, normalised (the '&').

    "A weighted concat that keeps the channels" in the released code: C / 64 groups, and the kernel grows by two with
    every halving of the groups below 32 (C = 256: 11, 2048: 5).
    """

    def __init__(self, dims: int, channels: int, channel: ChannelSecondOrder, position: PositionSecondOrder) -> None:
        super().__init__()
        self.channel, self.position = channel, position
        groups = max(channels // 64, 1)
        if channels % groups:
            raise UsageError(
                f"gsop: mode='concat' needs channels that {groups} groups of about 64 divide, got {channels}"
            )
        kernel = (max(2 * int(math.log2(32 / groups)) + 5, 1), *(1,) * (dims - 1))
        self.by_channel = conv(dims, channels, channels, kernel, groups=groups)
        self.by_position = conv(dims, channels, channels, kernel, groups=groups)
        self.norm = batch_norm(dims, channels)

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` of the channel attention, before its map is convolved."""
        return self.channel.weights(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the joined map."""
        return self.norm(self.by_channel(self.channel(x)) + self.by_position(self.position(x)))


def gsop(
    channels: int,
    *,
    mode: Literal["channel", "position", "sum", "max", "concat"] = "channel",
    reduced: Positive = 128,
    stride: Positive = 1,
    grid: Side = 8,
    dims: Dims = 2,
) -> ChannelSecondOrder | PositionSecondOrder | FusedSecondOrder | ConcatSecondOrder:
    """Build GSoP over `channels` channels.

    mode: weights of channels ("channel"), of positions ("position"), or both, whose maps are added ("sum", the authors'
    '+'), compete ("max", their 'M'), or pass a convolution each ("concat", their '&'); reduced: channels before the
    covariance; stride: of the reduction (the original: 2 in the first stage), of that for channels where there are
    both; grid: side of the grid of positions; dims: space axes.
    """
    if mode == "channel":
        return ChannelSecondOrder(dims, channels, reduced, stride)
    if mode == "position":
        return PositionSecondOrder(dims, channels, reduced, stride, grid)
    channel = ChannelSecondOrder(dims, channels, reduced, stride)
    position = PositionSecondOrder(dims, channels, reduced, 1, grid)
    if mode == "concat":
        return ConcatSecondOrder(dims, channels, channel, position)
    return FusedSecondOrder(channel, position, mode)


GSOP = Method(
    build=gsop,
    equation="h = relu(norm(conv1(relu(x)))),  w = sigmoid(W row_conv(norm(cov(h)))),  y = w * x",
    paper="Gao, Xie, Wang, Li: Global Second-order Pooling ConvNets, CVPR 2019, arXiv:1811.12006, section 3.1",
    needs=(Need(("grid",), "where mode='channel'", lambda o: o["mode"] != "channel"),),
    equals="ZilinGao/GSoP, the channel attention",
    differs="position attention and the fusions '+' and 'M' agree with the authors' lines run by hand, '&' is read off "
    "them; the original network was not run",
)
