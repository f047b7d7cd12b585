"""SGE: spatial group-wise enhance."""

import torch
from torch import nn

from excite.common.checks import Positive, check_divides, check_map
from excite.methods.base import Method
from excite.methods.nd import unbiased_deviation
from excite.methods.widths import largest_divisor
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap


class GroupEnhance(nn.Module):
    """Positions that resemble their group's mean are raised, `[n c *space] -> [n c *space]` (SGE, section 3).

    Per group: `t_p = mean(x) . x_p`, normalised over positions, `y_p = x_p * sigmoid(a t_p + b)`. a is 0 and b 1 at the
    start. The deviation is unbiased and 1e-5 is added to it, as in the released code.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels, self.groups = channels, groups
        self.weight = nn.Parameter(torch.zeros(groups))
        self.bias = nn.Parameter(torch.ones(groups))

    def _factors(self, grouped: torch.Tensor) -> torch.Tensor:
        """Return one factor per group and position, `[n g 1 p]`, of `[n g c/g p]`."""
        grouped = widen(grouped)
        alike = torch.matmul(grouped.mean(dim=3, keepdim=True).transpose(2, 3), grouped)
        alike = alike - alike.mean(dim=3, keepdim=True)
        # The root of a small number instead of 0 keeps the gradient of a constant map finite.
        alike = alike / (unbiased_deviation(alike, 3, 1e-24) + 1e-5)
        weight, bias = self.weight.to(alike.dtype)[:, None, None], self.bias.to(alike.dtype)[:, None, None]
        return torch.sigmoid(alike * weight + bias)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the enhanced map."""
        check_map("sge", x, self.channels)
        grouped = x.flatten(2).unflatten(1, (self.groups, -1))
        factors: torch.Tensor = without_autocast(self._factors, grouped)
        return (grouped * factors.to(x.dtype)).reshape(x.shape)


def sge(channels: int, *, groups: Positive | None = None) -> GroupEnhance:
    """Build spatial group-wise enhance over `channels` channels.

    groups: must divide the channels; None: 64, the paper's, or the most up to it that does.
    """
    if groups is None:
        groups = largest_divisor(channels, 64)
    check_divides("sge", "groups", groups, channels, "the channels")
    return GroupEnhance(channels, groups)


SGE = Method(
    build=sge,
    equation="per group  t_p = mean(x) . x_p,  y_p = x_p * sigmoid(a (t_p - mean(t)) / (std(t) + 1e-5) + b)",
    paper="Li, Hu, Yang: Spatial Group-wise Enhance: Improving Semantic Feature Learning in "
    "Convolutional Networks, 2019, "
    "arXiv:1905.09646, section 3",
    equals="implus/PytorchInsight",
    differs="a single position: the original has nan, here the deviation is 0",
)
