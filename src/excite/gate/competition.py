"""The gate of GCT: channels compete through their norms."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class Competition(nn.Module):
    """`e = alpha s`, `w = 1 + tanh(gamma e / norm_c(e) + beta)`, `[n c 1] -> [n c]` (GCT, section 3).

    norm: "l2", the root of the mean square over the channels, or "l1", the mean absolute value. alpha is 1, gamma
    and beta are 0 at the start, so the weights start at exactly 1.
    """

    def __init__(self, channels: int, norm: str = "l2", eps: float = 1e-5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.norm, self.eps = norm, eps

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        e = descriptor.squeeze(-1) * self.alpha
        if self.norm == "l2":
            scale = (e.square().mean(dim=1, keepdim=True) + self.eps).rsqrt()
        else:
            scale = 1 / (e.abs().mean(dim=1, keepdim=True) + self.eps)
        return 1 + torch.tanh(self.gamma * e * scale + self.beta)

    def extra_repr(self) -> str:
        """Show the norm."""
        return f"norm={self.norm!r}, eps={self.eps}"
