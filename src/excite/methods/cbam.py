"""CBAM: convolutional block attention, channels first, then positions."""

from collections.abc import Sequence

import torch
from torch import nn

from excite.attention import ChannelAttention
from excite.common.checks import Dims, Number, Odd, Positive, check_map, parts, shown
from excite.errors import UsageError
from excite.gates import ACTIVATIONS, Activation, SharedBottleneck
from excite.methods.base import REDUCTION, Method, Need
from excite.methods.nd import batch_norm, conv
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import POOLS, Pools
from excite.types import FeatureMap, Weights


class SpatialGate(nn.Module):
    """`y = x * sigmoid(norm(conv([max_c x, mean_c x])))`, `[n c *space]` (CBAM, eq. 3).

    max_first: order of the two input maps; average: their mean as the only input; norm: a batch norm after the
    convolution, starting from `norm_scale`; activation: one of `excite.gates.ACTIVATIONS`.
    """

    def __init__(
        self,
        dims: int,
        kernel_size: int,
        norm: bool = True,
        norm_scale: float = 1.0,
        max_first: bool = True,
        average: bool = False,
        activation: Activation = "sigmoid",
    ) -> None:
        super().__init__()
        self.max_first, self.average, self.activation = max_first, average, activation
        self.conv = conv(dims, 1 if average else 2, 1, kernel_size, bias=False)
        self.norm = batch_norm(dims, 1, momentum=0.01) if norm else None
        if self.norm is not None:
            nn.init.constant_(self.norm.weight, norm_scale)

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        largest, mean = widen(x.amax(dim=1, keepdim=True)), widen(x.mean(dim=1, keepdim=True))
        if self.average:
            maps = (largest + mean) / 2
        else:
            maps = torch.cat((largest, mean) if self.max_first else (mean, largest), dim=1)
        maps = self.conv(maps.to(self.conv.weight.dtype))
        return ACTIVATIONS[self.activation](maps if self.norm is None else self.norm(maps))

    def factors(self, x: FeatureMap) -> torch.Tensor:
        """Return one factor per position, `[n 1 *space]`; autocast does not reach it."""
        factors: torch.Tensor = without_autocast(self._factors, x)
        return factors

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map weighed position by position."""
        return x * self.factors(x).to(x.dtype)


class PositionsAlone(nn.Module):
    """CBAM without the channel gate, `[n c *space] -> [n c *space]`."""

    def __init__(self, dims: int, channels: int, spatial: SpatialGate) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.spatial = spatial

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map weighed position by position."""
        check_map("cbam", x, self.channels, self.dims)
        return self.spatial(x)


class Cbam(nn.Module):
    """Channel attention, then spatial attention, `[n c *space] -> [n c *space]`."""

    def __init__(self, dims: int, channel: ChannelAttention, spatial: SpatialGate) -> None:
        super().__init__()
        self.dims, self.channels = dims, channel.channels
        self.channel, self.spatial = channel, spatial

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` of the channel gate; the spatial gate multiplies every position further."""
        check_map("cbam", x, self.channels, self.dims)
        return self.channel.weights(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        check_map("cbam", x, self.channels, self.dims)
        return self.spatial(self.channel(x))


def pool_names(pools: str | Sequence[str]) -> tuple[str, ...]:
    """Return the pools of a list such as `avg,max`. Raises UsageError for unknown ones, none or repeated ones."""
    names = tuple(parts(pools))
    if not names or set(names) - set(POOLS) or len(set(names)) < len(names):
        raise UsageError(f"cbam: pools={shown(pools)}; expected some of {','.join(POOLS)}, each once")
    return names


def cbam(
    channels: int,
    *,
    reduction: Positive = 16,
    pools: str | Sequence[str] = "avg,max",
    mlp_bias: bool = True,
    channel: bool = True,
    spatial: bool = True,
    kernel_size: Odd = 7,
    spatial_norm: bool = True,
    norm_scale: Number = 1.0,
    max_first: bool = True,
    average_pools: bool = False,
    gate: Activation = "sigmoid",
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims | None = None,
) -> nn.Module:
    """Build CBAM over `channels` channels.

    reduction, divisor, hidden, mlp_bias: of the shared bottleneck, as in `se`; pools: some of avg, max, lp, lse;
    channel, spatial: with the gate of channels, with the gate of positions; kernel_size, spatial_norm, norm_scale,
    max_first: of the spatial gate (norm_scale is the initial scale of its norm; the original ResNets start from 0);
    average_pools: one mean of the pools in both gates (timm's light CBAM); gate: activation of both, "sigmoid" or
    "hard_sigmoid"; dims: space axes (None: 2, or without the spatial gate any).
    timm: mlp_bias=False, max_first=False. EMANet's tables: mlp_bias=False, spatial_norm=False, max_first=False.
    """
    if not (channel or spatial):
        raise UsageError(
            "cbam: channel=False with spatial=False leaves nothing; for no attention use the method 'none'"
        )
    bottleneck = SharedBottleneck(channels, hidden_channels(channels, reduction, divisor, hidden), mlp_bias, gate)
    channels_alone = ChannelAttention(Pools(pool_names(pools), average_pools), bottleneck, channels, dims)
    if not spatial:
        return channels_alone
    dims = 2 if dims is None else dims
    positions = SpatialGate(dims, kernel_size, spatial_norm, norm_scale, max_first, average_pools, gate)
    return Cbam(dims, channels_alone, positions) if channel else PositionsAlone(dims, channels, positions)


CBAM = Method(
    build=cbam,
    equation="w = sigmoid(mlp(mean(x)) + mlp(max(x))),  x' = w * x,  "
    "v = sigmoid(norm(conv7([max_c x', mean_c x']))),  y = v * x'",
    paper="Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521, eq. 1-3",
    needs=(
        REDUCTION,
        Need(
            ("reduction", "divisor", "hidden", "pools", "mlp_bias"),
            "without the gate of channels (channel=False)",
            lambda o: o["channel"],
        ),
        Need(
            ("kernel_size", "spatial_norm", "norm_scale", "max_first"),
            "without the spatial gate (spatial=False)",
            lambda o: o["spatial"],
        ),
        Need(("norm_scale",), "with spatial_norm=False", lambda o: o["spatial_norm"]),
        Need(("max_first",), "where average_pools makes one map of both", lambda o: not o["average_pools"]),
        Need(
            ("average_pools",),
            "on one pool without the spatial gate",
            lambda o: o["spatial"] or len(parts(o["pools"])) > 1,
        ),
    ),
    equals="Jongchan/attention-module, timm CbamModule, LightCbamModule and their parts",
)
