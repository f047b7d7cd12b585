"""SE-GC: a group convolution as gate."""

from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.gate.grouped import GroupedMatrix
from excite.methods.base import Method
from excite.methods.nd import check_divides, largest_divisor
from excite.squeeze import Mean


def se_gc(channels: int, *, groups: int | None = None, group_size: int | None = None, bias: bool = False) -> nn.Module:
    """Build SE-GC over `channels` channels.

    groups: blocks of the matrix (if neither is given: the largest divisor of the channels up to 16); group_size:
    channels of a block instead (the paper's SE-GC2 and SE-GC3: 16 and 8); bias: a bias after the matrix.
    """
    if groups is not None and group_size is not None:
        raise UsageError("se_gc: give groups or group_size, not both")
    if group_size is not None:
        check_divides("se_gc", "group_size", group_size, channels, "the channels")
        groups = channels // group_size
    elif groups is None:
        groups = largest_divisor(channels, 16)
    check_divides("se_gc", "groups", groups, channels, "the channels")
    return ChannelAttention(Mean(), GroupedMatrix(channels, groups, bias), channels)


METHOD = Method(
    build=se_gc,
    equation="w = sigmoid(W mean(x)),  W: block-diagonal, g blocks of c/g x c/g,  y = w * x",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv:1910.03151, eq. 4 and table 1",
)
