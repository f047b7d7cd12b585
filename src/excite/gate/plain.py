"""The gate without parameters."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class Plain(nn.Module):
    """`w = sigmoid(s)`, `[n c 1] -> [n c]` (SE-Var1 of the ECA-Net paper, section 3.2)."""

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the sigmoid of the descriptor."""
        return torch.sigmoid(descriptor.squeeze(-1))
