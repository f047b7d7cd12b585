"""cSE, sSE and scSE: squeeze and excitation of channels, of positions, and of both side by side."""

from typing import Literal

import torch
from torch import nn

from excite.attention import ChannelAttention
from excite.common.checks import Positive, check_map
from excite.gates import Bottleneck
from excite.methods.base import REDUCTION, Method
from excite.methods.nd import over_space
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights


class PositionExcitation(nn.Module):
    """`y_p = x_p * sigmoid(v . x_p + b)`, `[n c *space] -> [n c *space]` (Roy et al., section 2: sSE)."""

    def __init__(self, channels: int, method: str) -> None:
        super().__init__()
        self.channels, self.method = channels, method
        self.conv = nn.Conv1d(channels, 1, 1)

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        flat = widen(x).flatten(2)
        return torch.sigmoid(self.conv(flat.to(self.conv.weight.dtype)))

    def factors(self, x: FeatureMap) -> torch.Tensor:
        """Return one factor per position, `[n 1 *space]`, beyond autocast."""
        check_map(self.method, x, self.channels)
        factors: torch.Tensor = without_autocast(self._factors, x)
        return factors.reshape(x.shape[0], 1, *x.shape[2:])

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map weighed position by position."""
        return x * self.factors(x).to(x.dtype)


class Concurrent(nn.Module):
    """`y = a_c x + b_p x`, or the larger of the two, a the channel gate, b the position gate, `[n c *space]` (scSE)."""

    def __init__(self, channel: ChannelAttention, position: PositionExcitation, combine: str) -> None:
        super().__init__()
        self.channels, self.combine = channel.channels, combine
        self.channel, self.position = channel, position

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` of the channel gate; the position gate's result is added or competes."""
        check_map("scse", x, self.channels)
        return self.channel.weights(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the combined maps."""
        by_channel, by_position = over_space(self.weights(x), x), self.position.factors(x)
        if self.combine == "sum":
            return x * (by_channel + by_position).to(x.dtype)
        return torch.maximum(x * by_channel.to(x.dtype), x * by_position.to(x.dtype))


def cse(
    channels: int, *, reduction: Positive = 2, divisor: Positive = 1, hidden: Positive | None = None
) -> ChannelAttention:
    """Build cSE over `channels` channels; reduction, divisor, hidden: of the bottleneck, as in `se`."""
    return ChannelAttention(
        Mean(), Bottleneck(channels, hidden_channels(channels, reduction, divisor, hidden), bias=True), channels
    )


def sse(channels: int) -> PositionExcitation:
    """Build sSE over `channels` channels."""
    return PositionExcitation(channels, "sse")


def scse(
    channels: int,
    *,
    reduction: Positive = 2,
    combine: Literal["sum", "max"] = "sum",
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> Concurrent:
    """Build scSE over `channels` channels.

    reduction, divisor, hidden: of the channel gate's bottleneck, as in `se`; combine: "sum" of the two results (the
    paper; segmentation_models_pytorch, with reduction=16), or their "max" (the authors' code).
    """
    channel = cse(channels, reduction=reduction, divisor=divisor, hidden=hidden)
    return Concurrent(channel, PositionExcitation(channels, "scse"), combine)


PAPER = (
    "Roy, Navab, Wachinger: Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks, "
    "MICCAI 2018, arXiv:1803.02579, section 2"
)
PLACE = "after every block of a segmentation network (paper); here at the end of the residual branch"

CSE = Method(
    build=cse,
    equation="w = sigmoid(W2 relu(W1 mean(x) + b1) + b2),  y = w * x",
    paper=PAPER,
    place=PLACE,
    needs=(REDUCTION,),
    equals="ai-med/squeeze_and_excitation",
)
SSE = Method(
    build=sse,
    equation="y_p = x_p * sigmoid(v . x_p + b)",
    paper=PAPER,
    place=PLACE,
    equals="ai-med/squeeze_and_excitation",
)
SCSE = Method(
    build=scse,
    equation="y_p = x_p * sigmoid(W2 relu(W1 mean(x) + b1) + b2) + x_p * sigmoid(v . x_p + b)",
    paper=PAPER,
    place=PLACE,
    needs=(REDUCTION,),
    equals="ai-med/squeeze_and_excitation with combine='max', qubvel-org/segmentation_models.pytorch",
    differs="the paper adds (the default), the authors' code takes the maximum",
)
