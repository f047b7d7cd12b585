"""SoftBAN: batch norm whose scale is a softmax over the channels."""

import torch
from torch import nn

from excite.methods.nd import batch_norm, over_space
from excite.ops.precision import widen, without_autocast
from excite.squeeze import Mean
from excite.types import FeatureMap


class SoftNorm(nn.Module):
    """`norm(x) * a * softmax_c(sigmoid(mean(x) * w + b)) + c`, `[n c *space]` (EMANet's SoftBAN).

    norm is a batch norm without affine parameters. At the start (w = 0, b = -1, a = 1, c = 0) every channel is
    divided by c. The paper's name for w and b is "readjustment".
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.norm = batch_norm(dims, channels, affine=False)
        self.squeeze = Mean()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.readjust_weight = nn.Parameter(torch.zeros(channels))
        self.readjust_bias = nn.Parameter(torch.full((channels,), -1.0))

    def _scale(self, x: FeatureMap) -> torch.Tensor:
        s = widen(self.squeeze(x).squeeze(-1)) * self.readjust_weight + self.readjust_bias
        return self.weight * torch.softmax(torch.sigmoid(s), dim=-1)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the normalised, rescaled map."""
        scale = without_autocast(self._scale, x)
        return self.norm(x) * over_space(scale, x).to(x.dtype) + over_space(self.bias, x).to(x.dtype)
