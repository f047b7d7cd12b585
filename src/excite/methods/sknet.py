"""SK: selective kernels, convolutions of several sizes that compete channel by channel."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from excite.common.checks import (
    Dims,
    Integers,
    Odd,
    Odds,
    Positive,
    check_batch,
    check_divides,
    check_map,
    integers,
    parts,
)
from excite.methods.base import REDUCTION, Method, Need
from excite.methods.nd import batch_norm, conv, over_space
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights


class Selection(nn.Module):
    """`softmax_i(V_i relu(norm(W s)))`: the shares of the branches, `[n c 1] -> [n branches c]` (SK, eq. 4-5).

    norm: with batch norm and ReLU between W and V (else neither); bias: of both layers.
    """

    def __init__(self, channels: int, branches: int, hidden: int, norm: bool, bias: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=bias)
        self.norm = nn.BatchNorm1d(hidden) if norm else None
        self.expand = nn.Linear(hidden, branches * channels, bias=bias)
        self.branches = branches

    def forward(self, descriptor: torch.Tensor) -> torch.Tensor:
        """Return the shares."""
        hidden: torch.Tensor = self.reduce(descriptor.squeeze(-1).to(self.reduce.weight.dtype))
        if self.norm is not None:
            check_batch("sk", self, hidden)
            hidden = torch.relu(self.norm(hidden))
        return torch.softmax(self.expand(hidden).unflatten(1, (self.branches, -1)), dim=1)


class SelectiveKernel(nn.Module):
    """`y = sum_i a_i * f_i(x)`, `a = softmax_i` of the mean of `sum_i f_i(x)`, `[n c *space] -> [n o *space / stride]`.

    branches: modules `[n c *space] -> [n o *space / stride]`, of `[n c/branches *space]` each where `split`.
    """

    def __init__(self, channels: int, dims: int, branches: Sequence[nn.Module], gate: Selection, split: bool) -> None:
        super().__init__()
        self.channels, self.dims, self.split = channels, dims, split
        self.branches = nn.ModuleList(branches)
        self.squeeze = Mean()
        self.gate = gate

    def _select(self, *maps: FeatureMap) -> torch.Tensor:
        shares: torch.Tensor = self.gate(self.squeeze(sum(map(widen, maps[1:]), widen(maps[0]))))
        return shares

    def _branches(self, x: FeatureMap) -> tuple[list[FeatureMap], torch.Tensor]:
        """Return the branches' maps and their shares `[n b o]`."""
        check_map("sk", x, self.channels, self.dims)
        inputs = x.chunk(len(self.branches), dim=1) if self.split else [x] * len(self.branches)
        maps = [branch(part) for branch, part in zip(self.branches, inputs, strict=True)]
        return maps, without_autocast(self._select, *maps)

    def weights(self, x: FeatureMap) -> Weights:
        """Return the factors `[n branches * o]` of the branches' maps; channel i of all branches has a sum of 1."""
        return self._branches(x)[1].flatten(1)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the weighted sum of the branches."""
        maps, shares = self._branches(x)
        scaled = [m * over_space(shares[:, i].to(m.dtype), m) for i, m in enumerate(maps)]
        return sum(scaled[1:], scaled[0])


def sk(
    channels: int,
    *,
    out_channels: Positive | None = None,
    stride: Positive = 1,
    kernels: Odds = (3, 3),
    dilations: Integers | None = None,
    groups: Integers | None = None,
    split: bool = False,
    bias: bool = False,
    norm: bool = True,
    reduction: Positive = 16,
    least: Positive = 32,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> SelectiveKernel:
    """Build selective kernels, which stand for a 3x3 convolution from `channels` to `out_channels`.

    out_channels: None for as many as `channels`; stride: of every branch; kernels, dilations, groups: one per branch
    (dilations None: 1, 2, ... where the kernels are the same, else 1; groups None: 32, less where the channels are too
    few; in a network with slashes: 1/32); split: a part of the input for every branch; bias: of all
    layers; norm: batch norm and ReLU inside the bottleneck; reduction, divisor, hidden: of the bottleneck, as in `se`,
    from the output's channels, but at least `least` units; dims: space axes. PytorchInsight: dilations 1,1, groups
    1,32, least=1. timm: split=True, groups 1,1, divisor=8, least=8.
    """
    outputs = channels if out_channels is None else out_channels
    sizes = integers("sk", "kernels", kernels, max(2, len(parts(kernels))), Odd)
    count = len(sizes)
    if dilations is None:
        dilations = tuple(range(1, count + 1)) if len(set(sizes)) == 1 else (1,) * count
    spacing = integers("sk", "dilations", dilations, count)
    check_divides("sk", "split into branches", count if split else 1, channels, "the channels")
    inputs = channels // count if split else channels
    if groups is None:
        groups = (math.gcd(32, inputs, outputs),) * count
    cuts = integers("sk", "groups", groups, count)
    branches = []
    for size, dilation, cut in zip(sizes, spacing, cuts, strict=True):
        check_divides("sk", "groups", cut, inputs, "a branch's input channels")
        check_divides("sk", "groups", cut, outputs, "the output channels")
        layer = conv(dims, inputs, outputs, size, stride=stride, dilation=dilation, groups=cut, bias=bias)
        branches.append(nn.Sequential(layer, batch_norm(dims, outputs), nn.ReLU()))
    gate = Selection(outputs, count, hidden_channels(outputs, reduction, divisor, hidden, least), norm, bias)
    return SelectiveKernel(channels, dims, branches, gate, split)


SK = Method(
    build=sk,
    equation="f_i = relu(norm(conv3_{dilation i}(x))),  a = softmax_i(V_i relu(norm(W mean(sum_i f_i)))),  "
    "y = sum_i a_i * f_i",
    paper="Li, Wang, Hu, Yang: Selective Kernel Networks, CVPR 2019, arXiv:1903.06586, eq. 1-6",
    place="instead of the 3x3 convolution of a bottleneck",
    role="conv",
    needs=(
        REDUCTION,
        Need(("least",), "where hidden is given", lambda o: o["hidden"] is None),
    ),
    equals="implus/PytorchInsight (the authors'), timm SelectiveKernel, "
    "xmu-xiaoma666/External-Attention-pytorch, a port",
    differs="the paper's own network is in Caffe and was not run: the default follows its description (32 "
    "groups, dilations 1 and 2)",
)
