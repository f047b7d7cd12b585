"""A matrix of diagonal blocks: channels see those of their own group."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class GroupedMatrix(nn.Module):
    """`w = sigmoid(W s)` with W block-diagonal, `[n c 1] -> [n c]` (ECA-Net, eq. 4: a group convolution).

    groups: number of blocks; must divide channels.
    """

    def __init__(self, channels: int, groups: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, groups=groups, bias=bias)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(self.conv(descriptor.to(self.conv.weight.dtype)).squeeze(-1))
