"""SENet: squeeze-and-excitation."""

from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.gates import Bottleneck
from excite.methods.base import Method
from excite.squeezes import Mean


def round_channels(value: float, divisor: int) -> int:
    """Round to the nearest multiple of `divisor`, at least one multiple, never more than 10 % down."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def se(
    channels: int, *, reduction: int = 16, bias: bool = False, divisor: int = 1, hidden: int | None = None
) -> nn.Module:
    """Build SE over `channels` channels.

    reduction: c / reduction hidden units; bias: biases in both layers; divisor: hidden units are rounded to its
    multiples (timm: 8); hidden: the hidden units themselves, instead of a reduction.
    """
    if reduction < 1 or divisor < 1:
        raise UsageError(f"se: reduction and divisor must be at least 1, got {reduction} and {divisor}")
    if hidden is None:
        # The originals divide whole numbers; only the divisor rule rounds.
        hidden = max(1, channels // reduction) if divisor == 1 else round_channels(channels / reduction, divisor)
    return ChannelAttention(Mean(), Bottleneck(channels, hidden, bias), channels)


SE = Method(
    build=se,
    equation="w = sigmoid(W2 relu(W1 mean(x))),  W1: c/r x c,  W2: c x c/r,  y = w * x",
    paper="Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507, eq. 2-4",
)
