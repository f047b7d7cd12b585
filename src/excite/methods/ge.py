"""GE: gather-excite."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from excite.attention import ChannelAttention
from excite.common.checks import Dims, Integers, Positive, check_map, integers, parts
from excite.errors import UsageError
from excite.gates import Bottleneck, Plain, ReduceExpand
from excite.methods.base import REDUCTION, Method, Need
from excite.methods.nd import batch_norm, conv
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import GlobalGather, Mean
from excite.types import FeatureMap

# Any: options are of every kind.

_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


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


def size_of(size: int | str | Sequence[int] | None, dims: int | None) -> tuple[int, ...]:
    """Return the sides of the maps of a learned gather: one for all axes, or one per axis. Raises UsageError."""
    if size is None:
        raise UsageError("ge: a learned gather over the whole map (extent 0) needs the map's size: size=14 or size=7,9")
    entries = parts(size)
    if len(entries) == 1:
        entries *= 2 if dims is None else dims
    return integers("ge", "size", entries, min(3, max(1, len(entries))) if dims is None else dims)


def ge(
    channels: int,
    *,
    variant: Literal["theta-", "theta", "theta+"] = "theta-",
    extent: Literal[0, 2, 4, 8] = 0,
    mlp: bool | None = None,
    reduction: Positive = 16,
    size: Integers | None = None,
    bias: bool = False,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims | None = None,
) -> ChannelAttention | GatherExcite:
    """Build gather-excite over `channels` channels.

    variant: gather by averages ("theta-") or by depth-wise convolutions ("theta", and "theta+" with an MLP); extent:
    0 for the whole map, or 2, 4, 8; mlp: a bottleneck after the gather (None: only in theta+); reduction, divisor,
    hidden: of it, as in `se`; size: side(s) of the maps, for a learned gather over the whole map, bias: its bias;
    dims: space axes (None: as many as size has sides; any for the averages of extent 0; else 2).
    """
    with_mlp, learned = has_mlp({"variant": variant, "mlp": mlp}), variant != "theta-"
    width = hidden_channels(channels, reduction, divisor, hidden)
    if extent == 0:
        gate = Bottleneck(channels, width, bias=True) if with_mlp else Plain()
        if not learned:
            return ChannelAttention(Mean(), gate, channels, dims)
        sides = size_of(size, dims)
        return ChannelAttention(GlobalGather(channels, sides, bias), gate, channels, len(sides))
    dims = 2 if dims is None else dims
    gather = conv_gather(dims, channels, extent) if learned else MeanGather(dims, extent)
    mlp_layers = ReduceExpand(conv(dims, channels, width, 1), conv(dims, width, channels, 1)) if with_mlp else None
    return GatherExcite(channels, dims, gather, mlp_layers)


def has_mlp(options: Mapping[str, Any]) -> bool:
    """Return whether a bottleneck follows the gather."""
    return options["variant"] == "theta+" if options["mlp"] is None else bool(options["mlp"])


GE = Method(
    build=ge,
    equation="y = x * upsample(sigmoid(f(gather_e(x)))),  gather: average or depth-wise convs,  f: identity or MLP",
    paper="Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite: Exploiting Feature Context in Convolutional "
    "Neural Networks, "
    "NeurIPS 2018, arXiv:1810.12348, section 3",
    needs=(
        Need(("reduction", "divisor", "hidden"), "without a bottleneck: variant='theta+' or mlp=True", has_mlp),
        REDUCTION,
        Need(
            ("size", "bias"),
            "except in a learned gather over the whole map (variant='theta' or 'theta+', extent=0)",
            lambda o: o["variant"] != "theta-" and o["extent"] == 0,
        ),
    ),
    equals="timm GatherExcite",
    differs="timm's learned gathers stop with an error as published and were run with one repair; learned "
    "gathers over the whole map follow the paper",
)
