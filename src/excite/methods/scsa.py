"""SCSA: spatial attention along the axes, then self-attention between channels."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from excite.attention import DirectionalAttention
from excite.common.checks import Count, Dims, Odd, Odds, Positive, check_divides, check_map, integers
from excite.errors import UsageError
from excite.gates import ACTIVATIONS
from excite.methods.base import Method
from excite.methods.coord import strip_conv
from excite.methods.widths import largest_divisor
from excite.ops import recalibrate
from excite.ops.precision import widen, without_autocast
from excite.squeezes import StripMeans
from excite.types import FeatureMap, Strips, Weights

_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class QuarterConvs(nn.Module):
    """`norm_i([dw_k1(a), dw_k2(b), dw_k3(c), dw_k4(d)])` of the quarters of a strip, strips -> strips (SCSA, 3.1).

    The convolutions are shared by the axes; every axis has a group norm of four groups.
    """

    def __init__(self, dims: int, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(strip_conv(channels // 4, size, bias=True) for size in kernels)
        self.norms = nn.ModuleList(nn.GroupNorm(4, channels) for _ in range(dims))

    def forward(self, strips: Strips) -> Strips:
        """Return the strips before their activation."""
        joined = []
        for strip, norm in zip(strips, self.norms, strict=True):
            quarters = strip.to(norm.weight.dtype).chunk(4, dim=1)  # type: ignore[arg-type]  # a list has no types
            joined.append(norm(torch.cat([conv(q) for conv, q in zip(self.convs, quarters, strict=True)], dim=1)))
        return tuple(joined)


class SpatialChannelSynergy(nn.Module):
    """Strips of weights, then weights from attention between the channels, `[n c *space]` (SCSA, section 3).

    `x' = x * a(u) * a(v)`; `z = norm(pool(x'))`; q, k, v one factor per channel of z; the channels of a head attend to
    one another; the mean over the pooled positions gives the weights of the channels of x'.
    window: side of the pooling windows, at most the map's; 0: the whole map.
    """

    def __init__(
        self, dims: int, channels: int, spatial: DirectionalAttention, heads: int, window: int, bias: bool, gate: str
    ) -> None:
        super().__init__()
        self.dims, self.channels, self.heads, self.window, self.activation = dims, channels, heads, window, gate
        self.spatial = spatial
        self.norm = nn.GroupNorm(1, channels)
        self.q, self.k, self.v = (nn.Conv1d(channels, channels, 1, groups=channels, bias=bias) for _ in range(3))

    def _weights(self, x: FeatureMap) -> Weights:
        space = x.shape[2:]
        if self.window:
            # A map smaller than the window is pooled as a whole; the original refuses it.
            size = [min(self.window, side) for side in space]
            pooled = _POOLS[self.dims](x, size, size)
        else:
            pooled = x.mean(dim=tuple(range(2, x.dim())), keepdim=True)
        z = self.norm(widen(pooled).flatten(2).to(self.norm.weight.dtype))
        q, k, v = (layer(z).unflatten(1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        scores = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * (self.channels // self.heads) ** -0.5, dim=-1)
        return ACTIVATIONS[self.activation](torch.matmul(scores, v).flatten(1, 2).mean(dim=2))

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` of the attention between channels; the strips multiply every position before."""
        check_map("scsa", x, self.channels, self.dims)
        weights: Weights = without_autocast(self._weights, self.spatial(x))
        return weights

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        y = self.spatial(x)
        return recalibrate(y, without_autocast(self._weights, y))


def scsa(
    channels: int,
    *,
    heads: Positive | None = None,
    window: Count = 7,
    kernels: Odds = (3, 5, 7, 9),
    bias: bool = False,
    gate: Literal["sigmoid", "softmax"] = "sigmoid",
    dims: Dims = 2,
) -> SpatialChannelSynergy:
    """Build SCSA over `channels` channels, a multiple of 4.

    heads: of the attention between channels (None: 8 or the most up to it that divides the channels); window: side of
    its pooling windows, 0 for the whole map; kernels: of the convolutions along the axes, one per quarter of the
    channels; bias: of queries, keys and values; gate: "sigmoid", or "softmax" over positions and over channels; dims:
    space axes.
    """
    if channels % 4:
        raise UsageError(f"scsa: {channels} channels cannot be cut into quarters; it needs a multiple of 4")
    if heads is None:
        heads = largest_divisor(channels, 8)
    check_divides("scsa", "heads", heads, channels, "the channels")
    quarters = QuarterConvs(dims, channels, integers("scsa", "kernels", kernels, 4, Odd))
    spatial = DirectionalAttention("scsa", StripMeans(), quarters, channels, dims, "product", gate)
    return SpatialChannelSynergy(dims, channels, spatial, heads, window, bias, gate)


SCSA = Method(
    build=scsa,
    equation="x' = x * s(norm(dw(mean_w(x)))) * s(norm(dw(mean_h(x)))),  z = norm(pool7(x')),  "
    "w = s(mean(softmax(q k^T / sqrt(d)) v)) between the channels of z,  y = w * x',  s: sigmoid",
    paper="Si, Xu, Zhu, Zhang, Dong, Chen, Li: SCSA: Exploring the Synergistic Effects Between Spatial and Channel "
    "Attention, Neurocomputing 2025, arXiv:2407.05128, section 3",
    equals="HZAI-ZJNU/SCSA",
    differs="maps smaller than the window, which the original refuses, are pooled as a whole; "
    "down_sample_mode='recombination' fails as published",
)
