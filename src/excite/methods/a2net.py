"""A2-Nets: double attention."""

import torch
from torch import nn

from excite.common.checks import Positive, check_map
from excite.methods.base import Method
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap


class DoubleAttention(nn.Module):
    """Gather features by second-order pooling, give each position its mixture (A2-Nets, section 3).

    `Z = A softmax_positions(B)^T softmax_maps(V)`, then a 1x1 convolution back to c channels. A has `features`
    channels, B and V have `maps`.
    """

    def __init__(self, channels: int, features: int, maps: int, residual: bool) -> None:
        super().__init__()
        self.channels, self.residual = channels, residual
        self.feature = nn.Conv1d(channels, features, 1)
        self.gather = nn.Conv1d(channels, maps, 1)
        self.distribute = nn.Conv1d(channels, maps, 1)
        self.out = nn.Conv1d(features, channels, 1)

    def _attend(self, a: torch.Tensor, b: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a, b, v = widen(a), widen(b), widen(v)
        descriptors = torch.matmul(a, torch.softmax(b, dim=2).transpose(1, 2))
        return torch.matmul(descriptors, torch.softmax(v, dim=1))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the redistributed map (added to `x` if residual)."""
        check_map("a2", x, self.channels)
        flat = x.flatten(2)
        z = without_autocast(self._attend, self.feature(flat), self.gather(flat), self.distribute(flat))
        y = self.out(z.to(x.dtype)).reshape(x.shape)
        return x + y if self.residual else y


def a2(
    channels: int, *, features: Positive | None = None, maps: Positive | None = None, residual: bool = False
) -> DoubleAttention:
    """Build double attention over `channels` channels.

    features, maps: channels of A, and of B and V (None: c / 4, as in the paper); residual: add the input.
    """
    features, maps = hidden_channels(channels, 4, hidden=features), hidden_channels(channels, 4, hidden=maps)
    return DoubleAttention(channels, features, maps, residual)


A2 = Method(
    build=a2,
    equation="y = W [A(x) softmax_positions(B(x))^T] softmax_maps(V(x))",
    paper="Chen, Kalantidis, Li, Yan, Feng: A2-Nets: Double Attention Networks, NeurIPS 2018, arXiv:1810.11579, "
    "section 3",
    equals="xmu-xiaoma666/External-Attention-pytorch, a port, with the paper's axes",
    differs="no code of the authors was found; the port takes its softmaxes over the batch, which was put "
    "right before it was run",
)
