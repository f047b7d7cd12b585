"""The circular local gate of CECA: the channel axis is a ring."""

import torch
import torch.nn.functional as F
from torch import nn

from excite.types import Descriptor, Weights


class CircularConv(nn.Module):
    """`w = sigmoid(conv1d_k(s))` with circular padding, `[n c 1] -> [n c]`; k parameters.

    kernel_size: odd k, at most twice the channels.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, bias=False)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        pad = self.conv.kernel_size[0] // 2
        ring = F.pad(descriptor.transpose(1, 2).to(self.conv.weight.dtype), (pad, pad), mode="circular")
        return torch.sigmoid(self.conv(ring).squeeze(1))
