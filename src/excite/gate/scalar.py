"""One weight per channel: no interaction between channels."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class ScalarPerChannel(nn.Module):
    """`w = sigmoid(a * s)` with a in R^c, `[n c 1] -> [n c]` (SE-Var2 of the ECA-Net paper, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(descriptor.squeeze(-1) * self.weight)
