"""Learned global pooling: a depth-wise convolution as large as the map."""

import math

import torch
from torch import nn

from excite.errors import UsageError
from excite.types import Descriptor, FeatureMap


class GlobalGather(nn.Module):
    """`norm(sum_p w_c[p] x_c[p] + b_c)`, `[n c *size] -> [n c 1]` (Gather-Excite, GE-theta with a global extent).

    size: of the maps, one integer per space axis; other maps raise UsageError. bias: b.
    """

    def __init__(self, channels: int, size: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, 1, *size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(size))
            nn.init.uniform_(self.bias, -bound, bound)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the normalised weighted sums."""
        if tuple(x.shape[2:]) != self.size:
            raise UsageError(
                f"ge: a learned global gather for maps of size {self.size} got {tuple(x.shape[2:])}; "
                "give the right size, or a finite extent, which takes any size"
            )
        if self.training and x.shape[0] == 1:
            raise UsageError("ge with a global extent needs at least 2 samples in train mode: it normalises over them")
        # The product stands in the dtype of the weights: sums of half-precision products overflow.
        sums = (x.to(self.weight.dtype) * self.weight[:, 0]).flatten(2).sum(dim=2)
        return self.norm(sums if self.bias is None else sums + self.bias).unsqueeze(-1)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"size={self.size}"
