"""The gate of CBAM: one bottleneck for several descriptors."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class SharedBottleneck(nn.Module):
    """`w = sigmoid(sum_k W2 relu(W1 s_k))`, `[n c k] -> [n c]` (CBAM, eq. 2).

    channels: c; hidden: rows of W1; bias: of both layers (Jongchan's code has them, timm's has not).
    """

    def __init__(self, channels: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=bias)
        self.act = nn.ReLU()
        self.expand = nn.Linear(hidden, channels, bias=bias)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        s = descriptor.transpose(1, 2).to(self.reduce.weight.dtype)
        return torch.sigmoid(self.expand(self.act(self.reduce(s))).sum(dim=1))
