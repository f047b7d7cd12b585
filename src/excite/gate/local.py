"""The local gate of ECA: each weight looks at k neighbouring channels."""

import torch
from torch import nn

from excite.ops.correlate import correlate
from excite.types import Descriptor, Weights


class LocalConv(nn.Module):
    """`w = sigmoid(conv1d_k(s))` across channels, one kernel for all, `[n c 1] -> [n c]` (ECA-Net, eq. 7).

    kernel_size: odd k; the ends of the channel axis are zero-padded. Has k parameters.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(correlate(descriptor.squeeze(-1).to(self.conv.weight.dtype), self.conv))
