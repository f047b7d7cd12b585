"""ECA-Net: efficient channel attention, and the variants of SE that its paper compares with."""

import math
import re
from typing import Annotated

from excite.attention import ChannelAttention
from excite.common.checks import Number, Odd, Positive, PositiveNumber, Rule, check, check_divides
from excite.errors import UsageError
from excite.gates import (
    CircularConv,
    FullMatrix,
    GroupedMatrix,
    LocalConv,
    LocalMlp,
    PerChannelLocal,
    Plain,
    ScalarPerChannel,
)
from excite.methods.base import Method, Need, stage_digits
from excite.methods.widths import largest_divisor, round_channels
from excite.squeezes import Mean

Size = Odd | Annotated[str, Rule("'adaptive'", lambda text: re.fullmatch("adaptive|[0-9]{1,9}", text) is not None)]
"""Of a kernel: an odd integer (as text, too), or "adaptive" for the paper's formula."""

ADAPTIVE = Need(("gamma", "b"), "unless kernel_size='adaptive'", lambda o: o["kernel_size"] == "adaptive")
PAPER = (
    "Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks, "
    "CVPR 2020, arXiv:1910.03151"
)
VARIANTS = f"{PAPER}, section 3.2 and table 1"


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """Return the odd size next to |(log2(c) + b) / gamma| (ECA-Net, eq. 12).

    "Nearest odd" is ambiguous where the value is even; like all public code this goes up (c = 128 gives 5).
    """
    t = int(min(abs((math.log2(channels) + b) / gamma), 2.0**53))
    return t if t % 2 else t + 1


def kernel_size_of(method: str, kernel_size: int | str, channels: int, gamma: float, b: float) -> int:
    """Return the kernel size: an odd integer as it is, or "adaptive" by the paper's formula.

    Raises UsageError for a size beyond the channels, and for the authors' notation of one digit per stage (3557).
    """
    if kernel_size == "adaptive":
        k, source = adaptive_kernel_size(channels, gamma, b), f" (adaptive, gamma={gamma}, b={b})"
    else:
        k, source = int(kernel_size), ""
        check(method, "kernel_size", k, Odd)
        if digits := stage_digits(k):
            raise UsageError(
                f"{method}: kernel_size={k} reads like one size per stage; one module takes one size, "
                f"a network with {len(digits)} stages takes kernel_size={','.join(map(str, digits))}"
            )
    if k > channels:
        raise UsageError(f"{method}: kernel_size={k}{source} is larger than the {channels} channels it runs across")
    return k


def eca(
    channels: int,
    *,
    kernel_size: Size = "adaptive",
    gamma: PositiveNumber = 2,
    b: Number = 1,
    use_mlp: bool = False,
    mlp_width: Positive | None = None,
) -> ChannelAttention:
    """Build ECA over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the paper's formula). In a network one size per
    stage may be given as `3,5,5,7`, the sizes of the released ECA-ResNet-50, or as its authors write it, `3557`.
    use_mlp: every channel becomes several numbers before the convolution (timm's experiment, not in the paper);
    mlp_width: how many (None: c / 8 rounded to a multiple of 8).
    """
    size = kernel_size_of("eca", kernel_size, channels, gamma, b)
    if not use_mlp:
        return ChannelAttention(Mean(), LocalConv(size), channels)
    width = round_channels(channels / 8, 8) if mlp_width is None else mlp_width
    return ChannelAttention(Mean(), LocalMlp(size, width), channels)


ECA = Method(
    build=eca,
    equation="w = sigmoid(conv1d_k(mean(x))),  k = |(log2 c + b) / gamma| made odd,  y = w * x",
    paper=f"{PAPER}, eq. 7 and 12",
    needs=(ADAPTIVE, Need(("mlp_width",), "unless use_mlp=True", lambda o: o["use_mlp"])),
    equals="BangguWu/ECANet, timm EcaModule (use_mlp=True)",
    differs="timm's adaptive kernels are at least 3: below 8 channels give kernel_size=3",
)


def eca_ns(
    channels: int, *, kernel_size: Size = "adaptive", gamma: PositiveNumber = 2, b: Number = 1
) -> ChannelAttention:
    """Build ECA-NS over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the ECA paper's formula).
    """
    gate = PerChannelLocal(channels, kernel_size_of("eca_ns", kernel_size, channels, gamma, b))
    return ChannelAttention(Mean(), gate, channels)


ECA_NS = Method(
    build=eca_ns,
    equation="w_c = sigmoid(sum_j a_cj mean(x)_{c+j-k//2}),  a: c x k,  y = w * x",
    paper=f"{PAPER}, eq. 5-6 and table 1",
    needs=(ADAPTIVE,),
    equals="BangguWu/ECANet",
)


def ceca(
    channels: int, *, kernel_size: Size = "adaptive", gamma: PositiveNumber = 2, b: Number = 1
) -> ChannelAttention:
    """Build CECA over `channels` channels.

    kernel_size: odd k, or "adaptive" (then gamma and b are those of the ECA paper's formula).
    """
    return ChannelAttention(Mean(), CircularConv(kernel_size_of("ceca", kernel_size, channels, gamma, b)), channels)


CECA = Method(
    build=ceca,
    equation="w = sigmoid(conv1d_k(mean(x))) with circular padding,  y = w * x",
    paper="variant of ECA-Net (CVPR 2020, arXiv:1910.03151) in PyTorch Image Models (CecaModule)",
    needs=(ADAPTIVE,),
    equals="timm CecaModule",
)


def se_gc(
    channels: int, *, groups: Positive | None = None, group_size: Positive | None = None, bias: bool = False
) -> ChannelAttention:
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
    paper=f"{PAPER}, eq. 4 and table 1",
    differs="no code was published; the paper's equation",
)


def se_var1(channels: int) -> ChannelAttention:
    """Build SE-Var1 over `channels` channels."""
    return ChannelAttention(Mean(), Plain(), channels)


SE_VAR1 = Method(
    build=se_var1,
    equation="w = sigmoid(mean(x)),  y = w * x",
    paper=VARIANTS,
    differs="no code was published; the paper's equation",
)


def se_var2(channels: int) -> ChannelAttention:
    """Build SE-Var2 over `channels` channels."""
    return ChannelAttention(Mean(), ScalarPerChannel(channels), channels)


SE_VAR2 = Method(
    build=se_var2,
    equation="w = sigmoid(a * mean(x)),  a: c,  y = w * x",
    paper=VARIANTS,
    differs="no code was published; the paper's equation",
)


def se_var3(channels: int, *, bias: bool = False) -> ChannelAttention:
    """Build SE-Var3 over `channels` channels; bias: a bias after the matrix."""
    return ChannelAttention(Mean(), FullMatrix(channels, bias), channels)


SE_VAR3 = Method(
    build=se_var3,
    equation="w = sigmoid(W mean(x)),  W: c x c,  y = w * x",
    paper=VARIANTS,
    differs="no code was published; the paper's equation",
)
