"""SA-Net: shuffle attention."""

import torch
from torch import nn

from excite.common.checks import Positive, check_divides, check_map
from excite.errors import UsageError
from excite.methods.base import Method
from excite.methods.nd import over_space
from excite.methods.widths import largest_divisor
from excite.ops import recalibrate
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights


class ShuffleAttention(nn.Module):
    """Half of every group weighed by channel, half by position, then a shuffle, `[n c *space]` (SA-Net, eq. 1-3).

    groups: G; all groups share one set of 6 vectors of c / 2G numbers. At the start every weight is sigmoid(1).
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels, self.groups = channels, groups
        part = channels // (2 * groups)
        self.squeeze = Mean()
        self.channel_weight = nn.Parameter(torch.zeros(part))
        self.channel_bias = nn.Parameter(torch.ones(part))
        self.spatial_weight = nn.Parameter(torch.zeros(part))
        self.spatial_bias = nn.Parameter(torch.ones(part))
        self.norm = nn.GroupNorm(part, part)

    def _by_channel(self, x: FeatureMap) -> Weights:
        s = widen(self.squeeze(x).squeeze(-1))
        return torch.sigmoid(s * self.channel_weight + self.channel_bias)

    def _by_position(self, x: FeatureMap) -> FeatureMap:
        normed = self.norm(x)
        weight, bias = over_space(self.spatial_weight, x), over_space(self.spatial_bias, x)
        return torch.sigmoid(normed * weight.to(normed.dtype) + bias.to(normed.dtype))

    def _halves(self, x: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
        check_map("sa", x, self.channels)
        first, second = x.reshape(x.shape[0] * self.groups, -1, *x.shape[2:]).chunk(2, dim=1)
        return first, second

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` of the channels of `x`; those that differ by position are averaged over them."""
        first, second = self._halves(x)
        by_channel: Weights = without_autocast(self._by_channel, first)
        by_position = self._by_position(second).flatten(2).mean(2)
        return torch.cat((by_channel, by_position.to(by_channel.dtype)), dim=1).reshape(x.shape[:2])

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated, shuffled map."""
        first, second = self._halves(x)
        first = recalibrate(first, without_autocast(self._by_channel, first))
        second = second * self._by_position(second).to(x.dtype)
        y = torch.cat((first, second), dim=1)
        # Channel shuffle with two groups: channel 2i comes from the first half, 2i + 1 from the second.
        return y.reshape(x.shape[0], 2, self.channels // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def sa(channels: int, *, groups: Positive | None = None) -> ShuffleAttention:
    """Build shuffle attention over `channels` channels.

    groups: twice as many must divide the channels; None: 64, the paper's, or for narrow maps the most that fits.
    """
    if channels % 2:
        raise UsageError(f"sa: {channels} channels cannot be cut into pairs; it needs an even number")
    if groups is None:
        groups = largest_divisor(channels // 2, 64)
    check_divides("sa", "groups", groups, channels // 2, "half of the channels")
    return ShuffleAttention(channels, groups)


SA = Method(
    build=sa,
    equation="per group [a, b] = x:  a' = a * sigmoid(w mean(a) + u),  b' = b * sigmoid(v norm(b) + t),  "
    "y = shuffle([a', b'])",
    paper="Zhang, Yang: SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, ICASSP 2021, "
    "arXiv:2102.00240, eq. 1-3",
    equals="wofmanaf/SA-Net",
)
