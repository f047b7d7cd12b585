"""SE-Var2: one weight per channel."""

from torch import nn

from excite.attention import ChannelAttention
from excite.gate import ScalarPerChannel
from excite.methods.base import Method
from excite.squeeze import Mean


def se_var2(channels: int) -> nn.Module:
    """Build SE-Var2 over `channels` channels."""
    return ChannelAttention(Mean(), ScalarPerChannel(channels), channels)


METHOD = Method(
    build=se_var2,
    equation="w = sigmoid(a * mean(x)),  a: c,  y = w * x",
    paper="Wang et al.: ECA-Net, CVPR 2020, arXiv:1910.03151, section 3.2 and table 1",
)
