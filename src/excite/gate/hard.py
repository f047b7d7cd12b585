"""A full matrix and a piecewise linear sigmoid."""

import torch.nn.functional as F
from torch import nn

from excite.types import Descriptor, Weights


class HardFullMatrix(nn.Module):
    """`w = hard_sigmoid(W s + b)`, hard_sigmoid(t) = clip((t + 3) / 6, 0, 1), `[n c 1] -> [n c]` (VoVNetV2's eSE)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return F.hardsigmoid(self.fc(descriptor.squeeze(-1).to(self.fc.weight.dtype)))
