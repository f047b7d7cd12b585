"""GE: gather-excite."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.gates import Bottleneck, Plain
from excite.methods.base import Method
from excite.methods.nd import batch_norm, check_choice, check_dims, check_map, check_positive, conv, integers, parts
from excite.ops.precision import widen, without_autocast
from excite.squeezes import GlobalGather, Mean
from excite.types import FeatureMap

_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
VARIANTS = ("theta-", "theta", "theta+")


class MeanGather(nn.Module):
    """Average over windows of 2e - 1 every e positions, `[n c *space] -> [n c *(space / e)]` (padding not counted)."""

    def __init__(self, dims: int, extent: int) -> None:
        super().__init__()
        self.dims, self.extent = dims, extent

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the averaged map."""
        size, pad = 2 * self.extent - 1, self.extent - 1
        if self.dims < 3:
            pooled: FeatureMap = _POOLS[self.dims](x, size, self.extent, pad, count_include_pad=False)
            return pooled
        # avg_pool3d refuses maps smaller than its window even where padding fills it; pad first, then leave it out.
        ones = torch.ones_like(x[:1, :1])
        sums, counts = (F.avg_pool3d(F.pad(t, (pad,) * 6), size, self.extent) for t in (x, ones))
        return sums / counts


def conv_gather(dims: int, channels: int, extent: int) -> nn.Sequential:
    """Return log2(extent) depth-wise 3-wide convolutions of stride 2, each with a norm, ReLU between them."""
    layers: list[nn.Module] = []
    for _ in range(extent.bit_length() - 1):
        layers += [nn.ReLU()] if layers else []
        layers += [
            conv(dims, channels, channels, 3, stride=2, groups=channels, bias=False),
            batch_norm(dims, channels),
        ]
    return nn.Sequential(*layers)


class GatherExcite(nn.Module):
    """`y = x * upsample(sigmoid(excite(gather(x))))`, `[n c *space]` with a finite extent (Hu et al., eq. 1-2)."""

    def __init__(self, channels: int, dims: int, gather: nn.Module, excite: nn.Module | None) -> None:
        super().__init__()
        self.channels, self.dims = channels, dims
        self.gather, self.excite = gather, excite

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        check_map("ge", x, self.channels, self.dims)
        gathered = self.gather(x)
        if self.excite is not None:
            gathered = without_autocast(self.excite, widen(gathered))
        upsampled = F.interpolate(gathered, size=x.shape[2:], mode="nearest")
        return x * torch.sigmoid(upsampled).to(x.dtype)


class PointwiseMlp(nn.Sequential):
    """`W2 relu(W1 s + b1) + b2` at every position, `[n c *space]`."""

    def __init__(self, dims: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = conv(dims, channels, hidden, 1)
        self.act = nn.ReLU()
        self.expand = conv(dims, hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the transformed map, in the dtype of the weights."""
        return super().forward(x.to(self.reduce.weight.dtype))  # type: ignore[arg-type]


def _global(channels: int, learned: bool, mlp: bool, hidden: int, size: Any, dims: int, bias: bool) -> nn.Module:
    if learned and size is None:
        raise UsageError("ge: a learned gather over the whole map (extent 0) needs the map's size: size=14 or size=7,9")
    gate = Bottleneck(channels, hidden, bias=True) if mlp else Plain()
    if not learned:
        return ChannelAttention(Mean(), gate, channels)
    entries = parts(size)
    sides = integers("ge", "size", entries * dims if len(entries) == 1 else entries, max(dims, len(entries)))
    check_positive("ge", **{f"size[{i}]": s for i, s in enumerate(sides)})
    return ChannelAttention(GlobalGather(channels, sides, bias), gate, channels)


def ge(
    channels: int,
    *,
    variant: str = "theta-",
    extent: int = 0,
    mlp: bool | None = None,
    reduction: int = 16,
    size: int | str | Sequence[int] | None = None,
    bias: bool = False,
    dims: int = 2,
) -> nn.Module:
    """Build gather-excite over `channels` channels.

    variant: gather by averages ("theta-") or by depth-wise convolutions ("theta", and "theta+" with an MLP); extent:
    0 for the whole map, or 2, 4, 8; mlp: a bottleneck after the gather (None: only in theta+); reduction: of it;
    size: side(s) of the maps, for a learned gather over the whole map, bias: its bias; dims: space axes (any for the
    averages of extent 0).
    """
    check_choice("ge", "variant", variant, VARIANTS)
    check_choice("ge", "extent", str(extent), ("0", "2", "4", "8"))
    check_positive("ge", reduction=reduction)
    check_dims("ge", dims)
    with_mlp, learned = (variant == "theta+" if mlp is None else mlp), variant != "theta-"
    hidden = max(1, channels // reduction)
    if extent == 0:
        return _global(channels, learned, with_mlp, hidden, size, dims, bias)
    if size is not None or bias:
        raise UsageError("ge: size and bias belong to a learned gather over the whole map (extent=0)")
    gather = conv_gather(dims, channels, extent) if learned else MeanGather(dims, extent)
    return GatherExcite(channels, dims, gather, PointwiseMlp(dims, channels, hidden) if with_mlp else None)


GE = Method(
    build=ge,
    equation="y = x * upsample(sigmoid(f(gather_e(x)))),  gather: average or depth-wise convs,  f: identity or MLP",
    paper="Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite, NeurIPS 2018, arXiv:1810.12348, section 3",
)
