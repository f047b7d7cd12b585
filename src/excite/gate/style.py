"""The style gate of SRM: every channel weighs its own style, then a batch norm."""

import torch
from torch import nn

from excite.errors import UsageError
from excite.types import Descriptor, Weights


class StyleNorm(nn.Module):
    """`w = sigmoid(norm(sum_k a_ck s_ck))`, `[n c k] -> [n c]` (SRM, section 3.2: style integration).

    cfc: the weights a, `[c k]`, zero at the start, so every gate starts at 0.5. The batch norm's statistics are over
    the batch alone: train mode needs at least two samples (UsageError).
    """

    def __init__(self, channels: int, numbers: int = 2) -> None:
        super().__init__()
        self.cfc = nn.Parameter(torch.zeros(channels, numbers))
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        if self.training and descriptor.shape[0] == 1:
            raise UsageError(
                "srm normalises its descriptor over the batch and needs at least 2 samples in train mode; "
                "enlarge the batch, drop the last partial one, or call .eval()"
            )
        return torch.sigmoid(self.bn((descriptor.to(self.cfc.dtype) * self.cfc).sum(dim=-1)))
