"""VoVNetV2: effective squeeze-and-excitation (eSE)."""

from typing import Literal

from excite.attention import ChannelAttention
from excite.gates import Activation, FullMatrix, HardFullMatrix
from excite.methods.base import Method
from excite.methods.senet import squeeze_of


def ese(
    channels: int, *, pool: Literal["avg", "max", "avg+max"] = "avg", gate: Activation = "hard_sigmoid"
) -> ChannelAttention:
    """Build eSE over `channels` channels.

    pool: the mean of every channel, its maximum, or the mean of both, as in `se`; gate: "hard_sigmoid", or "sigmoid".
    """
    matrix = HardFullMatrix(channels) if gate == "hard_sigmoid" else FullMatrix(channels, bias=True)
    return ChannelAttention(squeeze_of(pool), matrix, channels)


ESE = Method(
    build=ese,
    equation="w = hard_sigmoid(W mean(x) + b),  W: c x c,  y = w * x",
    paper="Lee, Park: CenterMask: Real-Time Anchor-Free Instance Segmentation, CVPR 2020, arXiv:1911.06667, "
    "section on VoVNetV2",
    equals="timm EffectiveSEModule",
    differs="the authors' VoVNetV2 was not run",
)
