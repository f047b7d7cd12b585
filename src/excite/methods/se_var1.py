"""SE-Var1: a gate without parameters."""

from torch import nn

from excite.attention import ChannelAttention
from excite.gate import Plain
from excite.methods.base import Method
from excite.squeeze import Mean


def se_var1(channels: int) -> nn.Module:
    """Build SE-Var1 over `channels` channels."""
    return ChannelAttention(Mean(), Plain(), channels)


METHOD = Method(
    build=se_var1,
    equation="w = sigmoid(mean(x)),  y = w * x",
    paper="Wang et al.: ECA-Net, CVPR 2020, arXiv:1910.03151, section 3.2 and table 1",
)
