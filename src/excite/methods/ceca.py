"""CECA: efficient channel attention on a ring of channels."""

from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.gate.circular import CircularConv
from excite.methods.base import Method
from excite.methods.eca import kernel_size_of
from excite.squeeze import Mean


def ceca(channels: int, *, kernel_size: int | str = "adaptive", gamma: float = 2, b: float = 1) -> nn.Module:
    """Build CECA over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the ECA paper's formula).
    """
    k = kernel_size_of(kernel_size, channels, gamma, b)
    if k // 2 > channels:
        raise UsageError(f"ceca: kernel_size {k} wraps more than once around {channels} channels; use a smaller one")
    return ChannelAttention(Mean(), CircularConv(k), channels)


METHOD = Method(
    build=ceca,
    equation="w = sigmoid(conv1d_k(mean(x))) with circular padding,  y = w * x",
    paper="variant of ECA-Net (CVPR 2020, arXiv:1910.03151) in PyTorch Image Models (CecaModule)",
)
