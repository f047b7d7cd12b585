"""The unshared local gate of ECA-NS: every channel has its own kernel."""

import torch
import torch.nn.functional as F
from torch import nn

from excite.types import Descriptor, Weights


class PerChannelLocal(nn.Module):
    """`w_c = sigmoid(sum_j a_cj s_{c+j-k//2})`, `[n c 1] -> [n c]` (ECA-Net, eq. 5: the banded matrix W_k).

    kernel_size: odd k; the ends of the channel axis are zero-padded. Has k parameters per channel.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels, bias=False)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        k = self.conv.kernel_size[0]
        padded = F.pad(descriptor.squeeze(-1).to(self.conv.weight.dtype), (k // 2, k // 2))
        return torch.sigmoid(self.conv(padded.unfold(1, k, 1)).squeeze(-1))
