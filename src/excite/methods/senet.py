"""SENet: squeeze-and-excitation."""

from excite.attention import ChannelAttention
from excite.common.checks import Positive
from excite.gates import Bottleneck
from excite.methods.base import REDUCTION, Method
from excite.methods.widths import hidden_channels
from excite.squeezes import Mean


def se(
    channels: int,
    *,
    reduction: Positive = 16,
    bias: bool = False,
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> ChannelAttention:
    """Build SE over `channels` channels.

    reduction: c / reduction hidden units; bias: biases in both layers; divisor: hidden units are rounded to its
    multiples (timm: 8); hidden: the hidden units themselves, instead of a reduction.
    """
    gate = Bottleneck(channels, hidden_channels(channels, reduction, divisor, hidden), bias)
    return ChannelAttention(Mean(), gate, channels)


SE = Method(
    build=se,
    equation="w = sigmoid(W2 relu(W1 mean(x))),  W1: c/r x c,  W2: c x c/r,  y = w * x",
    paper="Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507, eq. 2-4",
    needs=(REDUCTION,),
)
