"""PSA: pyramid squeeze attention, the convolution of EPSANet."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from excite.gates import Bottleneck
from excite.methods.base import Method
from excite.methods.nd import (
    check_choice,
    check_dims,
    check_divides,
    check_map,
    check_positive,
    conv,
    integers,
    over_space,
)
from excite.ops.precision import without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap

GROUPS = (1, 4, 8, 16)


class PyramidAttention(nn.Module):
    """Branches of growing kernels that compete channel by channel, `[n c *space] -> [n o *space / stride]`.

    branches: modules `[n c *space] -> [n o/b *space]`. One bottleneck is shared by them; its weights are softmaxed
    over the branches (Zhang et al., EPSANet, section 3). The branches are joined last one first, as in the released
    code.
    """

    def __init__(
        self, method: str, channels: int, branches: Sequence[nn.Module], width: int, reduction: int, dims: int
    ) -> None:
        super().__init__()
        self.method, self.channels, self.dims = method, channels, dims
        self.branches = nn.ModuleList(branches)
        self.squeeze = Mean()
        self.gate = Bottleneck(width, max(1, width // reduction), bias=True)

    def _weights(self, *maps: torch.Tensor) -> torch.Tensor:
        gates = [self.gate(self.squeeze(m)) for m in maps]
        return torch.softmax(torch.stack(gates, dim=1), dim=1)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the joined, weighted branches."""
        check_map(self.method, x, self.channels, self.dims)
        maps = [branch(x) for branch in self.branches]
        weights = without_autocast(self._weights, *maps).to(maps[0].dtype)
        scaled = [m * over_space(weights[:, i], m) for i, m in enumerate(maps)]
        return torch.cat(scaled[::-1], dim=1)


def pyramid(
    method: str,
    branch: Callable[[int, int, int, int], nn.Module],
    channels: int,
    out_channels: int | None,
    kernels: Sequence[int] | str,
    groups: Sequence[int] | str | None,
    reduction: int,
    dims: int,
) -> nn.Module:
    """Return the four-branch module; branch: `(inputs, outputs, kernel size, groups) -> module`.

    Raises UsageError where channels, kernels and groups do not fit.
    """
    check_dims(method, dims)
    outputs = channels if out_channels is None else out_channels
    check_positive(method, reduction=reduction, out_channels=outputs)
    check_divides(method, "its number of branches", 4, outputs, "the output channels")
    if groups is None:
        groups = tuple(math.gcd(g, channels, outputs // 4) for g in GROUPS)
    sizes, split = integers(method, "kernels", kernels, 4), integers(method, "groups", groups, 4)
    for k, g in zip(sizes, split, strict=True):
        check_choice(method, "kernels", "odd" if k > 0 and k % 2 else str(k), ("odd",))
        check_divides(method, "groups", g, channels, "the channels")
        check_divides(method, "groups", g, outputs // 4, "a branch's output channels")
    branches = [branch(channels, outputs // 4, k, g) for k, g in zip(sizes, split, strict=True)]
    return PyramidAttention(method, channels, branches, outputs // 4, reduction, dims)


def psa(
    channels: int,
    *,
    out_channels: int | None = None,
    stride: int = 1,
    kernels: Sequence[int] | str = (3, 5, 7, 9),
    groups: Sequence[int] | str | None = None,
    reduction: int = 16,
    dims: int = 2,
) -> nn.Module:
    """Build PSA, which stands for a 3x3 convolution from `channels` to `out_channels`.

    out_channels: None for as many as `channels`; stride: of every branch; kernels, groups: one per branch (groups
    None: 1,4,8,16, less where the channels are too few; EPSANet-Large: 32,32,32,32; in a network with slashes:
    32/32/32/32); reduction: of the shared bottleneck; dims: space axes of the maps.
    """
    check_positive("psa", stride=stride)

    def branch(inputs: int, outputs: int, kernel_size: int, group: int) -> nn.Module:
        return conv(dims, inputs, outputs, kernel_size, stride=stride, groups=group, bias=False)

    return pyramid("psa", branch, channels, out_channels, kernels, groups, reduction, dims)


PSA = Method(
    build=psa,
    equation="f_i = conv_{k_i, groups g_i}(x),  s_i = sigmoid(W2 relu(W1 mean(f_i))),  y = concat_i softmax_i(s) * f_i",
    paper="Zhang, Zu, Lu, Zou, Meng: EPSANet, ACCV 2022, arXiv:2105.14447, section 3",
    place="instead of the 3x3 convolution of a bottleneck",
    role="conv",
)
