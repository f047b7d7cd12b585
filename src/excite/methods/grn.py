"""GRN: global response normalization, of ConvNeXt V2."""

import torch
from torch import nn

from excite.common.checks import PositiveNumber, check_map
from excite.methods.base import Method
from excite.methods.nd import over_space
from excite.ops import recalibrate
from excite.ops.precision import widen
from excite.types import FeatureMap, Weights


class ResponseNorm(nn.Module):
    """`y = x * (1 + gamma s / mean_c(s)) + beta`, s the L2 norm of a channel, `[n c *space]` (ConvNeXt V2, 3.2).

    gamma and beta are 0 at the start.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` that `x` is multiplied by, before anything is added."""
        check_map("grn", x, self.channels)
        norms = torch.linalg.vector_norm(widen(x).flatten(2), dim=2)
        return 1 + self.gamma.to(norms.dtype) * norms / (norms.mean(dim=1, keepdim=True) + self.eps)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        return recalibrate(x, self.weights(x)) + over_space(self.beta, x).to(x.dtype)


def grn(channels: int, *, eps: PositiveNumber = 1e-6) -> ResponseNorm:
    """Build global response normalization over `channels` channels; eps: added to the mean of the norms."""
    return ResponseNorm(channels, eps)


GRN = Method(
    build=grn,
    equation="s = |x|_2,  y = x + gamma * x * s / mean_c(s) + beta",
    paper="Woo, Debnath, Hu, Chen, Liu, Kweon, Xie: ConvNeXt V2: Co-designing and Scaling ConvNets with "
    "Masked Autoencoders, CVPR 2023, arXiv:2301.00808, section 3.2",
    place="after the activation inside a ConvNeXt block (paper); here at the end of the residual branch",
    identity_at_init=True,
    equals="facebookresearch/ConvNeXt-V2, timm GlobalResponseNorm",
    differs="channels first here, as all methods",
)
