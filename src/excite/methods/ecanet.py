"""ECA-Net: efficient channel attention, and the variants of SE that its paper compares with."""

import math

from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.gates import CircularConv, FullMatrix, GroupedMatrix, LocalConv, PerChannelLocal, Plain, ScalarPerChannel
from excite.methods.base import Method
from excite.methods.nd import check_divides, largest_divisor
from excite.squeezes import Mean


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


ECA = Method(
    build=eca,
    equation="w = sigmoid(conv1d_k(mean(x))),  k = |(log2 c + b) / gamma| made odd,  y = w * x",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv:1910.03151, eq. 7 and 12",
)


def eca_ns(channels: int, *, kernel_size: int | str = "adaptive", gamma: float = 2, b: float = 1) -> nn.Module:
    """Build ECA-NS over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the ECA paper's formula).
    """
    k = kernel_size_of(kernel_size, channels, gamma, b)
    return ChannelAttention(Mean(), PerChannelLocal(channels, k), channels)


ECA_NS = Method(
    build=eca_ns,
    equation="w_c = sigmoid(sum_j a_cj mean(x)_{c+j-k//2}),  a: c x k,  y = w * x",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv:1910.03151, eq. 5-6 and table 1",
)


def ceca(channels: int, *, kernel_size: int | str = "adaptive", gamma: float = 2, b: float = 1) -> nn.Module:
    """Build CECA over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the ECA paper's formula).
    """
    k = kernel_size_of(kernel_size, channels, gamma, b)
    if k // 2 > channels:
        raise UsageError(f"ceca: kernel_size {k} wraps more than once around {channels} channels; use a smaller one")
    return ChannelAttention(Mean(), CircularConv(k), channels)


CECA = Method(
    build=ceca,
    equation="w = sigmoid(conv1d_k(mean(x))) with circular padding,  y = w * x",
    paper="variant of ECA-Net (CVPR 2020, arXiv:1910.03151) in PyTorch Image Models (CecaModule)",
)


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


SE_GC = Method(
    build=se_gc,
    equation="w = sigmoid(W mean(x)),  W: block-diagonal, g blocks of c/g x c/g,  y = w * x",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv:1910.03151, eq. 4 and table 1",
)


def se_var1(channels: int) -> nn.Module:
    """Build SE-Var1 over `channels` channels."""
    return ChannelAttention(Mean(), Plain(), channels)


SE_VAR1 = Method(
    build=se_var1,
    equation="w = sigmoid(mean(x)),  y = w * x",
    paper="Wang et al.: ECA-Net, CVPR 2020, arXiv:1910.03151, section 3.2 and table 1",
)


def se_var2(channels: int) -> nn.Module:
    """Build SE-Var2 over `channels` channels."""
    return ChannelAttention(Mean(), ScalarPerChannel(channels), channels)


SE_VAR2 = Method(
    build=se_var2,
    equation="w = sigmoid(a * mean(x)),  a: c,  y = w * x",
    paper="Wang et al.: ECA-Net, CVPR 2020, arXiv:1910.03151, section 3.2 and table 1",
)


def se_var3(channels: int, *, bias: bool = False) -> nn.Module:
    """Build SE-Var3 over `channels` channels; bias: a bias after the matrix."""
    return ChannelAttention(Mean(), FullMatrix(channels, bias), channels)


SE_VAR3 = Method(
    build=se_var3,
    equation="w = sigmoid(W mean(x)),  W: c x c,  y = w * x",
    paper="Wang et al.: ECA-Net, CVPR 2020, arXiv:1910.03151, section 3.2 and table 1",
)
