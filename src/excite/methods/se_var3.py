"""SE-Var3: a full matrix instead of a bottleneck."""

from torch import nn

from excite.attention import ChannelAttention
from excite.gate import FullMatrix
from excite.methods.base import Method
from excite.squeeze import Mean


def se_var3(channels: int, *, bias: bool = False) -> nn.Module:
    """Build SE-Var3 over `channels` channels; bias: a bias after the matrix."""
    return ChannelAttention(Mean(), FullMatrix(channels, bias), channels)


METHOD = Method(
    build=se_var3,
    equation="w = sigmoid(W mean(x)),  W: c x c,  y = w * x",
    paper="Wang et al.: ECA-Net, CVPR 2020, arXiv:1910.03151, section 3.2 and table 1",
)
