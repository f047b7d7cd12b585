"""LCT: linear context transform."""

from excite.attention import ChannelAttention
from excite.common.checks import Positive, PositiveNumber, check_divides
from excite.gates import GroupedNorm
from excite.methods.base import Method
from excite.methods.widths import largest_divisor
from excite.squeezes import Mean


def lct(channels: int, *, groups: Positive | None = None, eps: PositiveNumber = 1e-5) -> ChannelAttention:
    """Build the linear context transform over `channels` channels.

    groups: must divide the channels; None: the most up to 8 that does and leaves at least two channels in each; eps:
    added to the variance.
    """
    if groups is None:
        groups = largest_divisor(channels, min(8, max(1, channels // 2)))
    check_divides("lct", "groups", groups, channels, "the channels")
    return ChannelAttention(Mean(), GroupedNorm(channels, groups, eps), channels)


LCT = Method(
    build=lct,
    equation="w = sigmoid(a (s - mean_g(s)) / std_g(s) + b),  s = mean(x),  g: the channels of a group,  y = w * x",
    paper="Ruan, Wen, Zheng, Zheng: Linear Context Transform Block, AAAI 2020, arXiv:1909.03834, section 3",
    equals="xmu-xiaoma666/External-Attention-pytorch, a port",
    differs="no code of the authors was found",
)
