"""NAM: normalization-based attention."""

import torch
from torch import nn

from excite.common.checks import Dims, check_map
from excite.methods.base import Method
from excite.methods.nd import batch_norm, over_space
from excite.ops.precision import widen
from excite.types import FeatureMap, Weights


class NormAttention(nn.Module):
    """`y = x * sigmoid(|g| / sum|g| * norm(x))`, g the scale of the batch norm, `[n c *space]` (NAM, eq. 1-2).

    The ratio gets no gradient, as in the released code. Weighs every position of every channel.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.norm = batch_norm(dims, channels)

    def _factors(self, x: FeatureMap) -> torch.Tensor:
        check_map("nam", x, self.channels, self.dims)
        normed = widen(self.norm(x))
        scale = widen(self.norm.weight.detach()).abs()
        return torch.sigmoid(normed * over_space(scale / scale.sum(), x))

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`, the mean over positions."""
        return self._factors(x).flatten(2).mean(dim=2)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return x * self._factors(x).to(x.dtype)


def nam(channels: int, *, dims: Dims = 2) -> NormAttention:
    """Build normalization-based attention over `channels` channels; dims: space axes."""
    return NormAttention(dims, channels)


NAM = Method(
    build=nam,
    equation="y = x * sigmoid(|g| / sum|g| * norm_g(x)),  g: scale of the batch norm",
    paper="Liu, Shao, Teng, Hoffmann: NAM: Normalization-based Attention Module, NeurIPS workshops 2021, "
    "arXiv:2111.12419, eq. 1-2",
    equals="Christian-lyc/NAM",
    differs="only the channel part was published, which weighs positions too",
)
