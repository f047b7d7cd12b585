"""PSA: pyramid squeeze attention, the convolution of EPSANet."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from excite.common.checks import Dims, Integers, Odd, Odds, Positive, check_divides, check_map, integers
from excite.errors import UsageError
from excite.gates import Bottleneck
from excite.methods.base import REDUCTION, Method
from excite.methods.nd import conv, over_space
from excite.methods.widths import hidden_channels
from excite.ops.precision import without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights

GROUPS = (1, 4, 8, 16)


class PyramidAttention(nn.Module):
    """Branches of growing kernels that compete channel by channel, `[n c *space] -> [n o *space / stride]`.

    branches: modules `[n c *space] -> [n o/b *space]`. One bottleneck is shared by them; its weights are softmaxed
    over the branches (Zhang et al., EPSANet, section 3). The branches are joined last one first, as in the released
    code.
    """

    def __init__(self, method: str, channels: int, branches: Sequence[nn.Module], gate: Bottleneck, dims: int) -> None:
        super().__init__()
        self.method, self.channels, self.dims = method, channels, dims
        self.branches = nn.ModuleList(branches)
        self.squeeze = Mean()
        self.gate = gate

    def _compete(self, *maps: FeatureMap) -> torch.Tensor:
        gates = [self.gate(self.squeeze(m)) for m in maps]
        return torch.softmax(torch.stack(gates, dim=1), dim=1)

    def _branches(self, x: FeatureMap) -> tuple[list[FeatureMap], torch.Tensor]:
        """Return the branches' maps and their shares `[n b o/b]`."""
        check_map(self.method, x, self.channels, self.dims)
        maps = [branch(x) for branch in self.branches]
        return maps, without_autocast(self._compete, *maps)

    def weights(self, x: FeatureMap) -> Weights:
        """Return the factors `[n o]` of the joined branches, in the order of the output's channels.

        They are what the branches' own maps are multiplied by; channel i of all branches shares a sum of 1.
        """
        return self._branches(x)[1].flip(1).flatten(1)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the joined, weighted branches."""
        maps, shares = self._branches(x)
        shares = shares.to(maps[0].dtype)
        scaled = [m * over_space(shares[:, i], m) for i, m in enumerate(maps)]
        return torch.cat(scaled[::-1], dim=1)


def pyramid(
    method: str,
    branch: Callable[[int, int, int, int], nn.Module],
    channels: int,
    outputs: int,
    kernels: int | Sequence[int] | str,
    groups: int | Sequence[int] | str | None,
    hidden: Callable[[int], int],
    dims: int,
) -> PyramidAttention:
    """Return the four-branch module; branch: `(inputs, outputs, kernel size, groups) -> module`.

    hidden: hidden units of the gate, from the channels of a branch. Raises UsageError where channels, kernels and
    groups do not fit.
    """
    if outputs % 4:
        raise UsageError(
            f"{method}: out_channels={outputs} cannot be cut into its 4 branches; it must be a multiple of 4"
        )
    width = outputs // 4
    if groups is None:
        groups = tuple(math.gcd(g, channels, width) for g in GROUPS)
    sizes, split = integers(method, "kernels", kernels, 4, Odd), integers(method, "groups", groups, 4)
    for g in split:
        check_divides(method, "groups", g, channels, "the channels")
        check_divides(method, "groups", g, width, "a branch's output channels")
    branches = [branch(channels, width, k, g) for k, g in zip(sizes, split, strict=True)]
    return PyramidAttention(method, channels, branches, Bottleneck(width, hidden(width), bias=True), dims)


def psa(
    channels: int,
    *,
    out_channels: Positive | None = None,
    stride: Positive = 1,
    kernels: Odds = (3, 5, 7, 9),
    groups: Integers | None = None,
    reduction: Positive = 16,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> PyramidAttention:
    """Build PSA, which stands for a 3x3 convolution from `channels` to `out_channels`.

    out_channels: None for as many as `channels`; stride: of every branch; kernels, groups: one per branch (groups
    None: 1,4,8,16, less where the channels are too few; EPSANet-Large: 32,32,32,32; in a network with slashes:
    32/32/32/32); reduction, divisor, hidden: of the shared bottleneck, as in `se`; dims: space axes of the maps.
    """

    def branch(inputs: int, outputs: int, kernel_size: int, group: int) -> nn.Module:
        return conv(dims, inputs, outputs, kernel_size, stride=stride, groups=group, bias=False)

    outputs = channels if out_channels is None else out_channels
    inner = partial(hidden_channels, reduction=reduction, divisor=divisor, hidden=hidden)
    return pyramid("psa", branch, channels, outputs, kernels, groups, inner, dims)


PSA = Method(
    build=psa,
    equation="f_i = conv_{k_i, groups g_i}(x),  s_i = sigmoid(W2 relu(W1 mean(f_i))),  y = concat_i softmax_i(s) * f_i",
    paper="Zhang, Zu, Lu, Zou, Meng: EPSANet: An Efficient Pyramid Squeeze Attention Block on "
    "Convolutional Neural Network, "
    "ACCV 2022, arXiv:2105.14447, section 3",
    place="instead of the 3x3 convolution of a bottleneck",
    role="conv",
    needs=(REDUCTION,),
    equals="murufeng/EPSANet",
)
