"""SENet: squeeze-and-excitation."""

from typing import Literal

from excite.attention import ChannelAttention
from excite.common.checks import Positive
from excite.gates import Activation, Bottleneck
from excite.methods.base import REDUCTION, Method
from excite.methods.widths import hidden_channels
from excite.squeezes import Mean, Pools


def squeeze_of(pool: Literal["avg", "max", "avg+max"]) -> Mean | Pools:
    """Return the squeeze to the mean of every channel, its maximum, or the mean of both (timm's add_maxpool)."""
    if pool == "avg":
        return Mean()
    return Pools(("max",)) if pool == "max" else Pools(("avg", "max"), average=True)


def se(
    channels: int,
    *,
    reduction: Positive = 16,
    bias: bool = False,
    pool: Literal["avg", "max", "avg+max"] = "avg",
    norm: bool = False,
    gate: Activation = "sigmoid",
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> ChannelAttention:
    """Build SE over `channels` channels.

    reduction: c / reduction hidden units; bias: biases in both layers; pool: the mean of every channel ("avg"), its
    maximum ("max"), or the mean of both ("avg+max", timm's add_maxpool); norm: a batch norm after the first layer;
    gate: "sigmoid", or "hard_sigmoid" as in MobileNetV3; divisor: hidden units are rounded to its multiples (timm: 8);
    hidden: the hidden units themselves, instead of a reduction.
    """
    width = hidden_channels(channels, reduction, divisor, hidden)
    return ChannelAttention(squeeze_of(pool), Bottleneck(channels, width, bias, norm, gate), channels)


SE = Method(
    build=se,
    equation="w = sigmoid(W2 relu(W1 mean(x))),  W1: c/r x c,  W2: c x c/r,  y = w * x",
    paper="Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507, eq. 2-4",
    needs=(REDUCTION,),
    equals="moskomule/senet.pytorch, hyunjaelee410/style-based-recalibration-module (biases), timm SEModule",
    differs="the authors' own code is a Caffe network, which was not run; timm rounds widths down by more "
    "than a tenth (11 to 8), divisor=8 here does not (16): give hidden",
)
