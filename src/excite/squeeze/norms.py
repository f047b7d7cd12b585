"""Norms over positions."""

import torch
from torch import nn

from excite.ops.precision import widen
from excite.types import Descriptor, FeatureMap


class L2(nn.Module):
    """`sqrt(sum x^2 + eps)` over all positions, `[n c *space] -> [n c 1]` (Gated Channel Transformation, section 3.1).

    Half precision is widened to float32.
    """

    needs_second_moment = True

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the L2 norm of every channel."""
        squares = widen(x).flatten(2).square().sum(dim=2)
        return (squares + self.eps).sqrt().unsqueeze(-1)

    def from_statistics(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> Descriptor:
        """Return the same descriptor from mean and biased variance `[n c]` over `count` positions."""
        return (torch.addcmul(variance, mean, mean) * count + self.eps).sqrt().unsqueeze(-1)

    def from_moments(self, sum_x: torch.Tensor, sum_x2: torch.Tensor, count: int) -> Descriptor:
        """Return the same descriptor from the per-channel sum of squares `[n c]`."""
        return (sum_x2 + self.eps).sqrt().unsqueeze(-1)

    def extra_repr(self) -> str:
        """Show eps."""
        return f"eps={self.eps}"


class L1(nn.Module):
    """`sum |x|` over all positions, `[n c *space] -> [n c 1]` (Gated Channel Transformation, the L1 variant)."""

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the L1 norm of every channel."""
        return widen(x).flatten(2).abs().sum(dim=2).unsqueeze(-1)
