"""SRM: style-based recalibration."""

from excite.attention import ChannelAttention
from excite.common.checks import PositiveNumber
from excite.gates import StyleNorm
from excite.methods.base import Method
from excite.squeezes import MeanStd


def srm(channels: int, *, eps: PositiveNumber = 1e-5) -> ChannelAttention:
    """Build SRM over `channels` channels; eps: added to the variance before the root."""
    return ChannelAttention(MeanStd(eps), StyleNorm(channels), channels)


SRM = Method(
    build=srm,
    equation="w = sigmoid(batch_norm(a * mean(x) + b * std(x))),  a, b: c,  y = w * x",
    paper="Lee, Kim, Nam: SRM: A Style-based Recalibration Module for Convolutional Neural Networks, ICCV 2019, "
    "arXiv:1903.10829, section 3",
    equals="hyunjaelee410/style-based-recalibration-module",
)
