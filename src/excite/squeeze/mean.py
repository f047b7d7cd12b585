"""Global average pooling."""

import torch
from torch import nn

from excite.types import Descriptor, FeatureMap


class Mean(nn.Module):
    """Mean over all positions, `[n c *space] -> [n c 1]` (Hu et al., Squeeze-and-Excitation Networks, eq. 2)."""

    needs_second_moment = False

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the mean of every channel."""
        return x.mean(dim=tuple(range(2, x.dim()))).unsqueeze(-1)

    def from_statistics(self, mean: torch.Tensor, variance: torch.Tensor | None, count: int) -> Descriptor:
        """Return the same descriptor from the mean `[n c]` of every channel."""
        return mean.unsqueeze(-1)

    def from_moments(self, sum_x: torch.Tensor, sum_x2: torch.Tensor | None, count: int) -> Descriptor:
        """Return the same descriptor from per-channel sums `[n c]` over `count` positions."""
        return self.from_statistics(sum_x / count, None, count)
