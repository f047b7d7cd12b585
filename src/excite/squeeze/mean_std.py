"""Style pooling: mean and standard deviation."""

import torch
from torch import nn

from excite.ops.precision import widen
from excite.types import Descriptor, FeatureMap


class MeanStd(nn.Module):
    """Mean and standard deviation over all positions, `[n c *space] -> [n c 2]` (SRM, section 3.1: style pooling).

    The variance is unbiased (a single position has variance 0) and `eps` is added before the root. Half precision
    is widened to float32, since squares of large activations overflow.
    """

    needs_second_moment = True

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return mean and standard deviation of every channel."""
        flat = widen(x).flatten(2)
        count = flat.shape[2]
        variance, mean = torch.var_mean(flat, dim=2, correction=0)
        # sym_max keeps a size that is unknown at export time unknown.
        unbiased: torch.Tensor = variance * count / torch.sym_max(count - 1, 1)  # type: ignore[assignment]
        return torch.stack((mean, (unbiased + self.eps).sqrt()), dim=-1)

    def from_statistics(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> Descriptor:
        """Return the same descriptor from mean and biased variance `[n c]` over `count` positions."""
        made = torch.stack((mean, variance * (count / max(count - 1, 1)) + self.eps), dim=-1)
        # In place: the root that autograd keeps is the descriptor, which the gate keeps anyway.
        made.select(-1, 1).sqrt_()
        return made

    def from_moments(self, sum_x: torch.Tensor, sum_x2: torch.Tensor, count: int) -> Descriptor:
        """Return the same descriptor from per-channel sums `[n c]` over `count` positions.

        The difference of squares cancels where the mean is large against the deviation: keep the sums in float32.
        """
        mean = sum_x / count
        return self.from_statistics(mean, (sum_x2 - sum_x * mean).clamp_min(0) / count, count)

    def extra_repr(self) -> str:
        """Show eps."""
        return f"eps={self.eps}"
