"""GCT: gated channel transformation."""

from typing import Literal

from excite.attention import ChannelAttention
from excite.common.checks import PositiveNumber
from excite.gates import Competition
from excite.methods.base import Method, Need
from excite.squeezes import L1, L2


def gct(
    channels: int, *, norm: Literal["l2", "l1"] = "l2", eps: PositiveNumber = 1e-5, after_relu: bool = False
) -> ChannelAttention:
    """Build GCT over `channels` channels.

    norm: "l2" (paper) or "l1"; eps: inside the roots (l1: in the divisor); after_relu: the map is known to be positive,
    so that the plain sum is its L1 norm, as in the released code.
    """
    squeeze = L2(eps) if norm == "l2" else L1(signed=after_relu)
    return ChannelAttention(squeeze, Competition(channels, norm, eps), channels)


GCT = Method(
    build=gct,
    equation="e = alpha |x|_2,  w = 1 + tanh(gamma e / rms_c(e) + beta),  y = w * x",
    paper="Yang, Zhu, Wu, Yang: Gated Channel Transformation for Visual Recognition, CVPR 2020, "
    "arXiv:1909.11519, section 3",
    place="before every convolution (paper); here after the last norm of the residual branch like the others",
    identity_at_init=True,
    needs=(Need(("after_relu",), "unless norm='l1'", lambda o: o["norm"] == "l1"),),
    equals="z-x-yang/GCT",
    differs="norm='l1' follows the source text; it was not run",
)
