"""ECA-NS: efficient channel attention without shared weights."""

from torch import nn

from excite.attention import ChannelAttention
from excite.gate.per_channel_local import PerChannelLocal
from excite.methods.base import Method
from excite.methods.eca import kernel_size_of
from excite.squeeze import Mean


def eca_ns(channels: int, *, kernel_size: int | str = "adaptive", gamma: float = 2, b: float = 1) -> nn.Module:
    """Build ECA-NS over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the ECA paper's formula).
    """
    k = kernel_size_of(kernel_size, channels, gamma, b)
    return ChannelAttention(Mean(), PerChannelLocal(channels, k), channels)


METHOD = Method(
    build=eca_ns,
    equation="w_c = sigmoid(sum_j a_cj mean(x)_{c+j-k//2}),  a: c x k,  y = w * x",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv:1910.03151, eq. 5-6 and table 1",
)
