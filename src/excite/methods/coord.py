"""Coordinate attention, and the two simplifications of it in PyTorch Image Models."""

from torch import nn

from excite.attention import DirectionalAttention
from excite.common.checks import Dims, Odd, Positive
from excite.gates import Activation, StripBottleneck, StripConv
from excite.methods.base import HIDDEN, REDUCTION, Method, Need
from excite.methods.widths import hidden_channels
from excite.squeezes import StripMeans


def coord(
    channels: int,
    *,
    reduction: Positive = 32,
    bias: bool = True,
    norm: bool = True,
    gate: Activation = "sigmoid",
    skip: bool = False,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> DirectionalAttention:
    """Build coordinate attention over `channels` channels.

    reduction, divisor, hidden: of the bottleneck, as in `se`, but at least 8 units; bias: of its layers; norm: a batch
    norm after the first; gate: the activation of the strips, "sigmoid" or "hard_sigmoid"; skip: add the input; dims:
    space axes. timm: bias=False, and two thirds of its ratio (1/16: reduction=24, divisor=8).
    """
    width = hidden_channels(channels, reduction, divisor, hidden, least=8)
    bottleneck = StripBottleneck(dims, channels, width, bias, norm, nn.Hardswish())
    return DirectionalAttention("coord", StripMeans(), bottleneck, channels, dims, "product", gate, skip)


COORD = Method(
    build=coord,
    equation="[u, v] = hard_swish(norm(W [mean_w(x), mean_h(x)])),  y[i, j] = x[i, j] * sigmoid(A u[i]) * "
    "sigmoid(B v[j])",
    paper="Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, CVPR 2021, arXiv:2103.02907, "
    "eq. 4-9",
    place="after the depth-wise convolution of an inverted residual (paper); here at the end of the residual branch",
    needs=(REDUCTION,),
    equals="houqb/CoordAttention (coordatt.py and mbv2_ca.py), timm CoordAttn",
)


def simple_coord(
    channels: int,
    *,
    reduction: Positive = 6,
    bias: bool = True,
    gate: Activation = "sigmoid",
    skip: bool = False,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> DirectionalAttention:
    """Build simplified coordinate attention over `channels` channels.

    reduction: c / reduction hidden units to the nearest multiple of 8, at least 8 (timm's ratio 1/4, of which it takes
    two thirds); hidden: the hidden units themselves; bias: of all layers; gate, skip, dims: as in `coord`.
    """
    width = max(8, int(channels / reduction + 4) // 8 * 8) if hidden is None else hidden
    bottleneck = StripBottleneck(dims, channels, width, bias, False, nn.SiLU())
    return DirectionalAttention("simple_coord", StripMeans(), bottleneck, channels, dims, "sum", gate, skip)


SIMPLE_COORD = Method(
    build=simple_coord,
    equation="u = silu(W mean_w(x)),  v = silu(W mean_h(x)),  y[i, j] = x[i, j] * sigmoid(A u[i] + B v[j])",
    paper="variant of coordinate attention (CVPR 2021, arXiv:2103.02907) in PyTorch Image Models (SimpleCoordAttn)",
    needs=(HIDDEN,),
    equals="timm SimpleCoordAttn",
)


def strip(
    channels: int,
    *,
    conv: bool = True,
    kernel_size: Odd = 3,
    bias: bool = False,
    gate: Activation = "sigmoid",
    skip: bool = False,
    dims: Dims = 2,
) -> DirectionalAttention:
    """Build strip attention over `channels` channels.

    conv: depth-wise convolutions along the axes (without them it has no parameters); kernel_size, bias: of these; gate,
    skip, dims: as in `coord`.
    """
    gates: nn.Module = nn.Identity()
    if conv:
        gates = StripConv([strip_conv(channels, kernel_size, bias) for _ in range(dims)], (), None)
    return DirectionalAttention("strip", StripMeans(), gates, channels, dims, "sum", gate, skip)


def strip_conv(channels: int, kernel_size: int, bias: bool) -> nn.Conv1d:
    """Return a depth-wise convolution along a strip, which keeps its length."""
    return nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)


STRIP = Method(
    build=strip,
    equation="y[i, j] = x[i, j] * sigmoid(dw_h(mean_w(x))[i] + dw_w(mean_h(x))[j]),  dw: depth-wise convolutions",
    paper="a minimal form of coordinate attention (CVPR 2021, arXiv:2103.02907) in PyTorch Image Models (StripAttn)",
    needs=(Need(("kernel_size", "bias"), "with conv=False", lambda o: o["conv"]),),
    equals="timm StripAttn",
)
