"""MLCA: mixed local channel attention."""

import torch
from torch import nn

from excite.common.checks import Dims, Number, Positive, PositiveNumber, check_map
from excite.gates import LocalConv
from excite.methods.base import Method
from excite.methods.ecanet import ADAPTIVE, Size, kernel_size_of
from excite.methods.nd import adaptive_average, spread
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap, Weights


class MixedLocal(nn.Module):
    """ECA of the whole map and of every cell of a coarse grid, mixed, `[n c *space] -> [n c *space]` (MLCA).

    The local gate runs over the cells one after another, the channels of each in turn, so that at the ends of a cell
    channels of neighbouring cells mix; the global one sees the mean of the cells. Both as in the released code.
    """

    def __init__(
        self, dims: int, channels: int, kernel_size: int, local_size: int, local_weight: float, learned: bool
    ) -> None:
        super().__init__()
        self.dims, self.channels, self.local_size = dims, channels, local_size
        self.across = LocalConv(kernel_size)
        self.local = LocalConv(kernel_size)
        self.local_weight = nn.Parameter(torch.tensor(float(local_weight))) if learned else float(local_weight)

    def _grid(self, x: FeatureMap) -> torch.Tensor:
        cells = widen(adaptive_average(x, self.local_size)).flatten(2)
        whole: torch.Tensor = self.across(cells.mean(dim=2, keepdim=True))
        rows: torch.Tensor = self.local(cells.transpose(1, 2).flatten(1).unsqueeze(-1))
        local = rows.unflatten(1, (-1, self.channels)).transpose(1, 2)
        share = self.local_weight
        mixed = whole.unsqueeze(-1) * (1 - share) + local * share
        return mixed.reshape(*x.shape[:2], *(self.local_size,) * self.dims)

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        check_map("mlca", x, self.channels, self.dims)
        factors: torch.Tensor = without_autocast(lambda maps: spread(self._grid(maps), maps), x)
        return factors

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`, the mean over positions."""
        return self._factors(x).flatten(2).mean(dim=2)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return x * self._factors(x).to(x.dtype)


def mlca(
    channels: int,
    *,
    kernel_size: Size = "adaptive",
    gamma: PositiveNumber = 2,
    b: Number = 1,
    local_size: Positive = 5,
    local_weight: Number = 0.5,
    learned: bool = False,
    dims: Dims = 2,
) -> MixedLocal:
    """Build mixed local channel attention over `channels` channels.

    kernel_size, gamma, b: as in `eca`, for both gates; local_size: cells along every axis; local_weight: share of the
    local gate, the rest is the global one's; learned: the share is a parameter that starts there (the released code's
    Option1); dims: space axes.
    """
    size = kernel_size_of("mlca", kernel_size, channels, gamma, b)
    return MixedLocal(dims, channels, size, local_size, local_weight, learned)


MLCA = Method(
    build=mlca,
    equation="g = mean over a grid of 5 x 5 cells,  w = a sigmoid(conv1d_k(g)) + (1 - a) sigmoid(conv1d_k(mean(g))),  "
    "y = spread(w) * x",
    paper="Wan, Lu, Shen, Kuang, Ding, Xu, Chen: Mixed local channel attention for object detection, Engineering "
    "Applications of Artificial Intelligence 2023, code github.com/wandahangFY/MLCA",
    needs=(ADAPTIVE,),
    equals="wandahangFY/MLCA: MLCA and Option1",
    differs="Option2 stops with an error as published",
)
