"""BAM: bottleneck attention between stages."""

from typing import Literal

import torch
from torch import nn

from excite.common.checks import Dims, Positive, check_batch, check_map
from excite.gates import ReduceExpand
from excite.methods.base import REDUCTION, Method
from excite.methods.nd import batch_norm, conv, over_space
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights


class ChannelBranch(ReduceExpand):
    """`W2 relu(norm(W1 mean(x)))` with biases, `[n c *space] -> [n c]` (BAM, eq. 3)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(nn.Linear(channels, hidden), nn.Linear(hidden, channels), nn.BatchNorm1d(hidden))
        self.squeeze = Mean()

    def forward(self, x: FeatureMap) -> torch.Tensor:
        """Return one number per channel, before the sigmoid."""
        check_batch("bam", self, x)
        return super().forward(self.squeeze(x).squeeze(-1))


class SpatialBranch(nn.Sequential):
    """Reduce, dilated convolutions, one output map, `[n c *space] -> [n 1 *space]` (BAM, eq. 4)."""

    def __init__(self, dims: int, channels: int, hidden: int, depth: int, dilation: int) -> None:
        layers: list[nn.Module] = [conv(dims, channels, hidden, 1), batch_norm(dims, hidden), nn.ReLU()]
        for _ in range(depth):
            layers += [conv(dims, hidden, hidden, 3, dilation=dilation), batch_norm(dims, hidden), nn.ReLU()]
        super().__init__(*layers, conv(dims, hidden, 1, 1))


class Bam(nn.Module):
    """`y = x * (1 + sigmoid(a(x) . b(x)))`, `.` a sum or a product, `[n c *space]` (BAM, eq. 1-2)."""

    def __init__(self, dims: int, channels: int, hidden: int, depth: int, dilation: int, combine: str) -> None:
        super().__init__()
        self.dims, self.channels, self.combine = dims, channels, combine
        self.channel = ChannelBranch(channels, hidden)
        self.spatial = SpatialBranch(dims, channels, hidden, depth, dilation)

    def _factors(self, x: FeatureMap) -> FeatureMap:
        check_map("bam", x, self.channels, self.dims)
        per_channel: torch.Tensor = widen(over_space(without_autocast(self.channel, x), x))
        per_position: torch.Tensor = widen(self.spatial(x))
        both = per_channel + per_position if self.combine == "sum" else per_channel * per_position
        return 1 + torch.sigmoid(both)

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`: the mean over positions of `1 + sigmoid(a . b)`."""
        return self._factors(x).flatten(2).mean(dim=2)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return x * self._factors(x).to(x.dtype)


def bam(
    channels: int,
    *,
    reduction: Positive = 16,
    combine: Literal["sum", "product"] = "sum",
    depth: Positive = 2,
    dilation: Positive = 4,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> Bam:
    """Build BAM over `channels` channels.

    reduction, divisor, hidden: of both branches, as in `se`; combine: "sum" of the branches as in the paper, "product"
    as in the released code (its checkpoints need it); depth, dilation: of the spatial branch's convolutions; dims:
    space axes.
    """
    return Bam(dims, channels, hidden_channels(channels, reduction, divisor, hidden), depth, dilation, combine)


BAM = Method(
    build=bam,
    equation="y = x * (1 + sigmoid(mlp(mean(x)) + conv1(dilated3(dilated3(conv1(x))))))",
    paper="Park, Woo, Lee, Kweon: BAM: Bottleneck Attention Module, BMVC 2018, arXiv:1807.06514, eq. 1-4",
    place="between stages, after stages 1, 2 and 3",
    role="between-stages",
    needs=(REDUCTION,),
    equals="Jongchan/attention-module, with combine='product'",
    differs="the paper adds the branches (the default), the code multiplies them; as published it stops with "
    "a NameError and was run with the name defined",
)
