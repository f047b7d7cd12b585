"""SRM: style-based recalibration."""

from torch import nn

from excite.attention import ChannelAttention
from excite.gates import StyleNorm
from excite.methods.base import Method
from excite.squeezes import MeanStd


def srm(channels: int, *, eps: float = 1e-5) -> nn.Module:
    """Build SRM over `channels` channels; eps: added to the variance before the root."""
    return ChannelAttention(MeanStd(eps), StyleNorm(channels), channels)


SRM = Method(
    build=srm,
    equation="w = sigmoid(batch_norm(a * mean(x) + b * std(x))),  a, b: c,  y = w * x",
    paper="Lee, Kim, Nam: SRM, A Style-based Recalibration Module for CNNs, ICCV 2019, arXiv:1903.10829, section 3",
)
