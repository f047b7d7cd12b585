"""A full matrix: every channel sees every other."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class FullMatrix(nn.Module):
    """`w = sigmoid(W s + b)` with W in R^{c x c}, `[n c 1] -> [n c]` (SE-Var3 of the ECA-Net paper, section 3.2)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels, bias=bias)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(self.fc(descriptor.squeeze(-1).to(self.fc.weight.dtype)))
