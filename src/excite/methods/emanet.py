"""EMANet: multi-scale attention (MA) and its norm (SoftBAN)."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from excite.common.checks import Dims, Integers, Odd, Odds, Positive
from excite.methods.base import REDUCTION, Method
from excite.methods.nd import batch_norm, conv, over_space
from excite.methods.psa import PyramidAttention, pyramid
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights


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

    def _scale(self, x: FeatureMap) -> Weights:
        s = widen(self.squeeze(x).squeeze(-1)) * self.readjust_weight + self.readjust_bias
        return self.weight * torch.softmax(torch.sigmoid(s), dim=-1)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the normalised, rescaled map."""
        scale = without_autocast(self._scale, x)
        return self.norm(x) * over_space(scale, x).to(x.dtype) + over_space(self.bias, x).to(x.dtype)


class MixerBranch(nn.Module):
    """One branch of MA, `[n c *space] -> [n o *space / stride]`.

    `h = norm(gelu(conv_k(x)))`, then `h += norm(gelu(depthwise(h)))`, then `h += norm(gelu(pointwise(soft_norm(h))))`.
    GELU stands before the norms, as in the released code.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, kernel_size: int, groups: int, stride: int, mixer_size: int
    ) -> None:
        super().__init__()
        self.conv = conv(dims, inputs, outputs, kernel_size, stride=stride, groups=groups, bias=False)
        self.norm = batch_norm(dims, outputs)
        self.depthwise = conv(dims, outputs, outputs, mixer_size, groups=outputs)
        self.depthwise_norm = batch_norm(dims, outputs)
        self.soft_norm = SoftNorm(dims, outputs)
        self.pointwise = conv(dims, outputs, outputs, 1)
        self.pointwise_norm = batch_norm(dims, outputs)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the branch's map."""
        h = self.norm(F.gelu(self.conv(x)))
        h = h + self.depthwise_norm(F.gelu(self.depthwise(h)))
        return h + self.pointwise_norm(F.gelu(self.pointwise(self.soft_norm(h))))


def ma(
    channels: int,
    *,
    out_channels: Positive | None = None,
    stride: Positive = 1,
    kernels: Odds = (3, 5, 7, 9),
    groups: Integers | None = None,
    mixer_size: Odd = 9,
    reduction: Positive = 16,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> PyramidAttention:
    """Build MA, which stands for a 3x3 convolution from `channels` to `out_channels`.

    out_channels: None for as many as `channels`; stride: of every branch; kernels, groups: one per branch (groups
    None: 1,4,8,16, less where the channels are too few); mixer_size: kernel of the depth-wise convolutions;
    reduction, divisor, hidden: of the shared bottleneck, as in `se`; dims: space axes.
    """

    def branch(inputs: int, outputs: int, kernel_size: int, group: int) -> nn.Module:
        return MixerBranch(dims, inputs, outputs, kernel_size, group, stride, mixer_size)

    outputs = channels if out_channels is None else out_channels
    inner = partial(hidden_channels, reduction=reduction, divisor=divisor, hidden=hidden)
    return pyramid("ma", branch, channels, outputs, kernels, groups, inner, dims)


MA = Method(
    build=ma,
    equation="h = norm(gelu(conv_{k_i, groups g_i}(x))),  h += norm(gelu(dw9(h))),  "
    "f_i = h + norm(gelu(pw(softban(h)))),  s_i = sigmoid(W2 relu(W1 mean(f_i))),  y = concat_i softmax_i(s) * f_i",
    paper="EMANet: efficient multi-scale attention network, code github.com/Xsmile-love/pytorch-emanet-master",
    place="instead of the 3x3 convolution of a bottleneck",
    role="conv",
    needs=(REDUCTION,),
    equals="Xsmile-love/pytorch-emanet-master",
)
