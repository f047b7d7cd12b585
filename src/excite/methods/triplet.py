"""Triplet attention: one gate across every axis of the map, channels included."""

import torch
from torch import nn

from excite.common.checks import Dims, Odd, check_map
from excite.methods.base import Method
from excite.methods.cbam import SpatialGate
from excite.types import FeatureMap, Weights


class TripletAttention(nn.Module):
    """`y = mean_i(x * g_i(x))`, g_i CBAM's spatial gate across axis i, `[n c *space]` (Triplet attention, eq. 1-4).

    A gate takes maximum and mean over its axis and convolves what remains: over (c, w), (c, h), and (h, w). Maps with
    d space axes have d + 1 gates, the last one across the channels (spatial: whether it is there).
    """

    def __init__(self, dims: int, channels: int, kernel_size: int, spatial: bool) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.axes = (*range(2, dims + 2), 1) if spatial else tuple(range(2, dims + 2))
        self.gates = nn.ModuleList(SpatialGate(dims, kernel_size) for _ in self.axes)

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        check_map("triplet", x, self.channels, self.dims)
        factors = [
            gate.factors(x.transpose(1, axis)).transpose(1, axis)  # type: ignore[operator]  # a list has no types
            for gate, axis in zip(self.gates, self.axes, strict=True)
        ]
        return sum(factors[1:], factors[0]) / len(factors)

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`, the mean over positions."""
        return self._factors(x).flatten(2).mean(dim=2)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return x * self._factors(x).to(x.dtype)


def triplet(channels: int, *, kernel_size: Odd = 7, spatial: bool = True, dims: Dims = 2) -> TripletAttention:
    """Build triplet attention over `channels` channels.

    kernel_size: of the convolutions; spatial: with the gate across the channels (else only those that join channels
    with one axis); dims: space axes.
    """
    return TripletAttention(dims, channels, kernel_size, spatial)


TRIPLET = Method(
    build=triplet,
    equation="g_i = sigmoid(norm(conv7([max_i x, mean_i x]))) over axis i,  y = x * (g_h + g_w + g_c) / 3",
    paper="Misra, Nalamada, Arasanipalai, Hou: Rotate to Attend: Convolutional Triplet Attention Module, WACV 2021, "
    "arXiv:2010.03045, eq. 1-4",
    equals="landskape-ai/triplet-attention",
)
