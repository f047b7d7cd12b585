"""ECA: efficient channel attention."""

import math

from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.gate import LocalConv
from excite.methods.base import Method
from excite.squeeze import Mean


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """Return the odd size next to |(log2(c) + b) / gamma| (ECA-Net, eq. 12).

    "Nearest odd" is ambiguous where the value is even; like all public code this goes up (c = 128 gives 5).
    """
    t = int(abs((math.log2(channels) + b) / gamma))
    return t if t % 2 else t + 1


def kernel_size_of(kernel_size: int | str, channels: int, gamma: float, b: float) -> int:
    """Return the kernel size: an odd integer as it is, or "adaptive" by the paper's formula.

    Raises UsageError for an even or non-positive size and for any other word.
    """
    if isinstance(kernel_size, str):
        if kernel_size == "adaptive":
            return adaptive_kernel_size(channels, gamma, b)
        if not kernel_size.strip().isdigit():
            raise UsageError(f"eca: kernel_size {kernel_size!r}; expected an odd integer or 'adaptive'")
        kernel_size = int(kernel_size)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError(f"eca: kernel_size {kernel_size} is not a positive odd integer")
    return kernel_size


def eca(channels: int, *, kernel_size: int | str = "adaptive", gamma: float = 2, b: float = 1) -> nn.Module:
    """Build ECA over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the paper's formula). In a network one size per
    stage may be given as `3,5,5,7`, the sizes of the released ECA-ResNet-50.
    """
    k = kernel_size_of(kernel_size, channels, gamma, b)
    return ChannelAttention(Mean(), LocalConv(k), channels)


METHOD = Method(
    build=eca,
    equation="w = sigmoid(conv1d_k(mean(x))),  k = |(log2 c + b) / gamma| made odd,  y = w * x",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv:1910.03151, eq. 7 and 12",
)
