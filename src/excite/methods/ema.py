"""EMA: efficient multi-scale attention with cross-spatial learning."""

import torch
from torch import nn

from excite.common.checks import Dims, Positive, check_divides, check_map
from excite.methods.base import Method
from excite.methods.nd import conv
from excite.methods.widths import largest_divisor
from excite.ops import recalibrate_along
from excite.ops.precision import widen, without_autocast
from excite.squeezes import StripMeans
from excite.types import FeatureMap


class EfficientMultiScale(nn.Module):
    """Two branches weigh each other's positions, `[n c *space] -> [n c *space]` (EMA, section 3).

    Groups of c / g channels share all weights. `a = norm(x * sigmoid(u) * sigmoid(v))`, u and v one 1x1 convolution of
    the means along the axes; `b = conv3(x)`; `y_p = x_p * sigmoid(softmax(mean a) . b_p + softmax(mean b) . a_p)`.
    """

    def __init__(self, dims: int, channels: int, groups: int) -> None:
        super().__init__()
        self.dims, self.channels, self.groups = dims, channels, groups
        width = channels // groups
        self.squeeze = StripMeans()
        self.norm = nn.GroupNorm(width, width)
        self.conv1 = nn.Conv1d(width, width, 1)
        self.conv3 = conv(dims, width, width, 3)

    def _attend(self, x: FeatureMap, wide: FeatureMap) -> torch.Tensor:
        strips = self.squeeze(x)
        joined = self.conv1(torch.cat(strips, dim=2).to(self.conv1.weight.dtype))
        along_axes = torch.sigmoid(joined).split([strip.shape[2] for strip in strips], dim=2)
        a = self.norm(recalibrate_along(widen(x), along_axes).to(self.norm.weight.dtype)).flatten(2)
        b = wide.to(a.dtype).flatten(2)
        of_a, of_b = (torch.softmax(t.mean(dim=2), dim=1).unsqueeze(1) for t in (a, b))
        return torch.sigmoid(torch.matmul(of_a, b) + torch.matmul(of_b, a))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map weighed position by position, group by group."""
        check_map("ema", x, self.channels, self.dims)
        grouped = x.reshape(x.shape[0] * self.groups, -1, *x.shape[2:])
        factors: torch.Tensor = without_autocast(self._attend, grouped, self.conv3(grouped))
        y = grouped * factors.reshape(-1, 1, *x.shape[2:]).to(x.dtype)
        return y.reshape(x.shape)


def ema(channels: int, *, groups: Positive | None = None, dims: Dims = 2) -> EfficientMultiScale:
    """Build efficient multi-scale attention over `channels` channels.

    groups: must divide the channels (the released code calls it factor); None: 32, the paper's, or the most up to it
    that does; dims: space axes.
    """
    if groups is None:
        groups = largest_divisor(channels, 32)
    check_divides("ema", "groups", groups, channels, "the channels")
    return EfficientMultiScale(dims, channels, groups)


EMA = Method(
    build=ema,
    equation="per group  a = norm(x * sigmoid(u) * sigmoid(v)),  [u, v] = conv1([mean_w(x), mean_h(x)]),  "
    "b = conv3(x),  y_p = x_p * sigmoid(softmax(mean(a)) . b_p + softmax(mean(b)) . a_p)",
    paper="Ouyang, He, Zhang, Luo, Guo, Zhan, Huang: Efficient Multi-Scale Attention Module with Cross-Spatial "
    "Learning, ICASSP 2023, arXiv:2305.13563, section 3",
    equals="YOLOonMe/EMA-attention-module",
)
