"""CPCA: channel prior convolutional attention."""

import torch
import torch.nn.functional as F
from torch import nn

from excite.attention import ChannelAttention
from excite.common.checks import Dims, Odd, Odds, Positive, check_map, integers, parts
from excite.gates import SharedBottleneck
from excite.methods.base import REDUCTION, Method
from excite.methods.nd import conv
from excite.methods.widths import hidden_channels
from excite.squeezes import Pools
from excite.types import FeatureMap, Weights


def axis_convs(dims: int, channels: int, size: int) -> nn.Sequential:
    """Return depth-wise convolutions along one axis after the other, the last axis first: (1, k), then (k, 1)."""
    kernels = [tuple(size if axis == i else 1 for i in range(dims)) for axis in reversed(range(dims))]
    return nn.Sequential(*(conv(dims, channels, channels, kernel, groups=channels) for kernel in kernels))


class ChannelPrior(nn.Module):
    """Channel weights first, then a map from convolutions that multiplies it, `[n c *space]` (CPCA, section 3).

    `h = w * gelu(P x)`, `g = dw5(h)`, `y = P(h * P(g + sum_k dw_k(g)))`: P is one 1x1 convolution, used three times, as
    in the released code. The product is of second order in the map: beyond half precision where activations are large.
    """

    def __init__(
        self, dims: int, channels: int, channel: ChannelAttention, first: int, strips: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.channel = channel
        self.first = conv(dims, channels, channels, first, groups=channels)
        self.strips = nn.ModuleList(axis_convs(dims, channels, size) for size in strips)
        self.project = conv(dims, channels, channels, 1)

    def _projected(self, x: FeatureMap) -> FeatureMap:
        check_map("cpca", x, self.channels, self.dims)
        return F.gelu(self.project(x))

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]`, from 0 to 2, of the projected map; convolutions weigh its positions further."""
        return self.channel.weights(self._projected(x))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the attended map."""
        h = self.channel(self._projected(x))
        g = self.first(h)
        maps = [convs(g) for convs in self.strips]
        spatial: torch.Tensor = self.project(sum(maps, g))
        y: FeatureMap = self.project(h * spatial)
        return y


def cpca(
    channels: int,
    *,
    reduction: Positive = 4,
    first: Odd = 5,
    kernels: Odds = (7, 11, 21),
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> ChannelPrior:
    """Build channel prior convolutional attention over `channels` channels.

    reduction, divisor, hidden: of the channel gate's bottleneck, as in `se`; first: kernel of the first depth-wise
    convolution; kernels: of those along the axes, side by side; dims: space axes.
    """
    sizes = integers("cpca", "kernels", kernels, max(1, len(parts(kernels))), Odd)
    gate = SharedBottleneck(channels, hidden_channels(channels, reduction, divisor, hidden), separate=True)
    channel = ChannelAttention(Pools(("avg", "max")), gate, channels)
    return ChannelPrior(dims, channels, channel, first, sizes)


CPCA = Method(
    build=cpca,
    equation="h = (s(mlp(mean(z))) + s(mlp(max(z)))) * z,  z = gelu(P x),  g = dw5(h),  "
    "y = P(h * P(g + dw7(g) + dw11(g) + dw21(g))),  s: sigmoid,  dw_k: k x 1 after 1 x k",
    paper="Huang, Chen, Zou, Lu, Chen: Channel prior convolutional attention for medical image segmentation, 2023, "
    "arXiv:2306.05196, section 3, code github.com/Cuthbert-Huang/CPCANet",
    place="inside the blocks of a segmentation network (paper); here at the end of the residual branch",
    needs=(REDUCTION,),
    equals="Cuthbert-Huang/CPCANet: RepBlock",
)
