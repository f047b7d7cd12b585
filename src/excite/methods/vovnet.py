"""VoVNetV2: effective squeeze-and-excitation (eSE)."""

from excite.attention import ChannelAttention
from excite.gates import HardFullMatrix
from excite.methods.base import Method
from excite.squeezes import Mean


def ese(channels: int) -> ChannelAttention:
    """Build eSE over `channels` channels."""
    return ChannelAttention(Mean(), HardFullMatrix(channels), channels)


ESE = Method(
    build=ese,
    equation="w = hard_sigmoid(W mean(x) + b),  W: c x c,  y = w * x",
    paper="Lee, Park: CenterMask (VoVNetV2), CVPR 2020, arXiv:1911.06667, section on VoVNetV2",
)
