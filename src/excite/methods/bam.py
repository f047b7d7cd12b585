"""BAM: bottleneck attention between stages."""

import torch
from torch import nn

from excite.errors import UsageError
from excite.methods.base import Method
from excite.methods.nd import (
    batch_norm,
    check_choice,
    check_dims,
    check_map,
    check_positive,
    conv,
    over_space,
)
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import Descriptor, FeatureMap


class ChannelBranch(nn.Module):
    """`W2 relu(norm(W1 mean(x)))` with biases, `[n c *space] -> [n c]` (BAM, eq. 3)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = Mean()
        self.reduce = nn.Linear(channels, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return one number per channel, before the sigmoid."""
        if self.training and x.shape[0] == 1:
            raise UsageError("bam normalises over the batch: it needs at least 2 samples in train mode, or .eval()")
        s = self.squeeze(x).squeeze(-1).to(self.reduce.weight.dtype)
        return self.expand(torch.relu(self.norm(self.reduce(s))))


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

    def _weights(self, per_channel: torch.Tensor, per_position: torch.Tensor) -> torch.Tensor:
        both = per_channel + per_position if self.combine == "sum" else per_channel * per_position
        return 1 + torch.sigmoid(both)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        check_map("bam", x, self.channels, self.dims)
        per_channel = over_space(without_autocast(self.channel, x), x)
        weights = self._weights(widen(per_channel), widen(self.spatial(x)))
        return x * weights.to(x.dtype)


def bam(
    channels: int, *, reduction: int = 16, combine: str = "sum", depth: int = 2, dilation: int = 4, dims: int = 2
) -> nn.Module:
    """Build BAM over `channels` channels.

    reduction: of both branches; combine: "sum" of the branches as in the paper, "product" as in the released code
    (its checkpoints need it); depth, dilation: of the spatial branch's convolutions; dims: space axes.
    """
    check_choice("bam", "combine", combine, ("sum", "product"))
    check_positive("bam", reduction=reduction, depth=depth, dilation=dilation)
    check_dims("bam", dims)
    return Bam(dims, channels, max(1, channels // reduction), depth, dilation, combine)


BAM = Method(
    build=bam,
    equation="y = x * (1 + sigmoid(mlp(mean(x)) + conv1(dilated3(dilated3(conv1(x))))))",
    paper="Park, Woo, Lee, Kweon: BAM, BMVC 2018, arXiv:1807.06514, eq. 1-4",
    place="between stages, after stages 1, 2 and 3",
    role="between-stages",
)
