"""SimAM: a weight for every neuron from its energy, without parameters."""

import torch
from torch import nn

from excite.common.checks import PositiveNumber, check_map
from excite.methods.base import Method
from excite.ops.precision import widen
from excite.types import FeatureMap, Weights


class SimAm(nn.Module):
    """`y = x * sigmoid(d / (4 (v + eps)) + 1/2)`, d the squared distance to the channel's mean, v its variance.

    `[n c *space] -> [n c *space]` (SimAM, eq. 5-6). As in the released code the variance is unbiased (the paper writes
    1/M); a single position has variance 0, where the original has nan.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        check_map("simam", x, self.channels)
        flat = widen(x).flatten(2)
        distance = (flat - flat.mean(dim=2, keepdim=True)).square()
        # sym_max keeps a size that is unknown at export time unknown; to the checker it returns anything.
        variance: torch.Tensor = distance.sum(dim=2, keepdim=True) / torch.sym_max(flat.shape[2] - 1, 1)  # type: ignore[assignment]
        return torch.sigmoid(distance / (4 * (variance + self.eps)) + 0.5)

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`, the mean over positions."""
        return self._factors(x).mean(dim=2)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return x * self._factors(x).to(x.dtype).reshape(x.shape)

    def extra_repr(self) -> str:
        """Show the channels and eps."""
        return f"channels={self.channels}, eps={self.eps}"


def simam(channels: int, *, eps: PositiveNumber = 1e-4) -> SimAm:
    """Build SimAM over `channels` channels; eps: added to the variance (the paper's lambda)."""
    return SimAm(channels, eps)


SIMAM = Method(
    build=simam,
    equation="d = (x - mean(x))^2,  y = x * sigmoid(d / (4 (var(x) + eps)) + 1/2)",
    paper="Yang, Zhang, Li, Xie: SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks, "
    "ICML 2021, section 3",
    equals="ZjjConan/SimAM",
    differs="a single position: the original has nan, here its variance is 0",
)
