"""MCA: multidimensional collaborative attention, one gate of vectors for every axis."""

import math

import torch
from torch import nn

from excite.common.checks import Dims, Odd, check_map
from excite.methods.base import Method
from excite.methods.nd import unbiased_deviation
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap, Weights

# Keeps the gradient of the deviation of a constant finite; the original has nan there.
TINY = 1e-12


class AxisGate(nn.Module):
    """`sigmoid(conv1d_k((1/2 + a) mean + (1/2 + b) std))` along one axis, over all others, a and b sigmoids.

    `[n c *space] -> [n ...]` with a size of one on every axis but `axis` (MCA, section 3).
    """

    def __init__(self, axis: int, kernel_size: int) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.rand(2))
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: FeatureMap) -> torch.Tensor:
        """Return the factors along the axis, ready to broadcast."""
        others = tuple(axis for axis in range(1, x.dim()) if axis != self.axis)
        wide = widen(x)
        mean, std = wide.mean(dim=others, keepdim=True), unbiased_deviation(wide, others, TINY)
        share = 0.5 + torch.sigmoid(self.weight.to(mean.dtype))
        pooled = share[0] * mean + share[1] * std
        row = self.conv(pooled.flatten(1).unsqueeze(1).to(self.conv.weight.dtype))
        return torch.sigmoid(row).reshape(pooled.shape)


class CollaborativeAttention(nn.Module):
    """`y = x * mean_i g_i(x)`, a gate g_i along every axis, `[n c *space] -> [n c *space]` (MCA, section 3)."""

    def __init__(self, dims: int, channels: int, kernel_size: int, across: int | None) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        gates = [AxisGate(axis, kernel_size) for axis in range(2, dims + 2)]
        self.gates = nn.ModuleList(gates if across is None else [*gates, AxisGate(1, across)])

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        factors = [gate(x) for gate in self.gates]
        total: torch.Tensor = sum(factors[1:], factors[0])
        return total / len(factors)

    def factors(self, x: FeatureMap) -> torch.Tensor:
        """Return the factors of the whole map, beyond autocast."""
        check_map("mca", x, self.channels, self.dims)
        factors: torch.Tensor = without_autocast(self._factors, x)
        return factors

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`, the mean over positions."""
        return self.factors(x).flatten(2).mean(dim=2).expand(-1, self.channels)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return x * self.factors(x).to(x.dtype)


def kernel_across(channels: int) -> int:
    """Return the kernel of the channel gate, |log2(c) - 1| / 1.5 to an odd integer below, at least 1."""
    size = round(abs(math.log2(channels) - 1) / 1.5)
    return max(1, size if size % 2 else size - 1)


def mca(
    channels: int, *, kernel_size: Odd = 3, across: Odd | None = None, channel: bool = True, dims: Dims = 2
) -> CollaborativeAttention:
    """Build multidimensional collaborative attention over `channels` channels.

    kernel_size: of the gates along the space axes; across: of the gate along the channels (None: the paper's formula);
    channel: whether that gate is there (the released code's no_spatial=True leaves it out); dims: space axes.
    """
    width = (kernel_across(channels) if across is None else across) if channel else None
    return CollaborativeAttention(dims, channels, kernel_size, width)


MCA = Method(
    build=mca,
    equation="p_i = (1/2 + s(a_i)) mean_i(x) + (1/2 + s(b_i)) std_i(x) along axis i,  g_i = s(conv1d(p_i)),  "
    "y = x * (g_h + g_w + g_c) / 3,  s: sigmoid",
    paper="Yu, Zhang, Cheng, Song, Tang: MCA: Multidimensional collaborative attention in deep convolutional neural "
    "networks for image recognition, Engineering Applications of Artificial Intelligence 2023, "
    "code github.com/ndsclark/MCANet",
    equals="ndsclark/MCANet",
    differs="a single position or a constant map: the original has nan, here the deviation is 0; 2 channels, "
    "which it refuses, have a kernel of 1",
)
