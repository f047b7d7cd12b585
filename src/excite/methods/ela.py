"""ELA: efficient local attention."""

from typing import Literal

from torch import nn

from excite.attention import DirectionalAttention
from excite.common.checks import Dims, Odd, Positive, check_divides
from excite.gates import Activation, StripConv
from excite.methods.base import Method, Need
from excite.methods.coord import strip_conv
from excite.methods.widths import largest_divisor
from excite.squeezes import StripMeans


def ela(
    channels: int,
    *,
    kernel_size: Odd = 7,
    shared: bool = True,
    norm: Literal["group", "batch", "none"] = "group",
    groups: Positive | None = None,
    act: bool = False,
    bias: bool = False,
    gate: Activation = "sigmoid",
    skip: bool = False,
    dims: Dims = 2,
) -> DirectionalAttention:
    """Build efficient local attention over `channels` channels.

    kernel_size, bias: of the depth-wise convolutions along the axes; shared: one convolution and one norm for all axes,
    else one for each; norm: "group", "batch" or "none"; groups: of the group norm (None: 16, the paper's, or where it
    does not divide the channels the most that does); act: SiLU after the norm; gate, skip, dims: as in `coord`. timm:
    shared=False, groups=1, act=True.
    """
    count = 1 if shared else dims
    if groups is None:
        groups = largest_divisor(channels, 16)
    check_divides("ela", "groups", groups, channels, "the channels")
    norms: list[nn.Module] = []
    if norm != "none":
        norms = [nn.GroupNorm(groups, channels) if norm == "group" else nn.BatchNorm1d(channels) for _ in range(count)]
    convs = [strip_conv(channels, kernel_size, bias) for _ in range(count)]
    gates = StripConv(convs, norms, nn.SiLU() if act else None)
    return DirectionalAttention("ela", StripMeans(), gates, channels, dims, "product", gate, skip)


ELA = Method(
    build=ela,
    equation="y[i, j] = x[i, j] * sigmoid(norm(dw7(mean_w(x)))[i]) * sigmoid(norm(dw7(mean_h(x)))[j])",
    paper="Xu, Wan: ELA: Efficient Local Attention for Deep Convolutional Neural Networks, 2024, arXiv:2403.01123, "
    "section 3",
    needs=(Need(("groups",), "unless norm='group'", lambda o: o["norm"] == "group"),),
    equals="HZAI-ZJNU/SCSA, which has the paper's form, timm EfficientLocalAttn",
    differs="the authors published no code; copies differ in kernels and groups",
)
