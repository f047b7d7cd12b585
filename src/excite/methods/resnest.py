"""Split attention, the convolution of ResNeSt."""

import torch
from torch import nn

from excite.common.checks import Dims, Odd, Positive, check_batch, check_divides, check_map
from excite.methods.base import REDUCTION, Method, Need
from excite.methods.nd import batch_norm, conv, over_space
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.squeezes import Mean
from excite.types import FeatureMap, Weights


class RadixGate(nn.Module):
    """`softmax_r(V relu(norm(W s)))`, W and V with biases and in groups, `[n o 1] -> [n radix o]` (ResNeSt, eq. 3).

    A radix of 1 has nothing to compete with: a sigmoid instead.
    """

    def __init__(self, channels: int, hidden: int, radix: int, groups: int, norm: bool) -> None:
        super().__init__()
        self.radix, self.groups = radix, groups
        self.reduce = nn.Conv1d(channels, hidden, 1, groups=groups)
        self.norm = nn.BatchNorm1d(hidden) if norm else None
        self.expand = nn.Conv1d(hidden, radix * channels, 1, groups=groups)

    def forward(self, descriptor: torch.Tensor) -> torch.Tensor:
        """Return the shares of the parts."""
        hidden: torch.Tensor = self.reduce(descriptor.to(self.reduce.weight.dtype))
        if self.norm is not None:
            check_batch("split", self, hidden)
            hidden = self.norm(hidden)
        logits: torch.Tensor = self.expand(torch.relu(hidden)).squeeze(-1)
        # They come ordered by group, radix, channel of the group; the maps by radix, group, channel.
        logits = logits.unflatten(1, (self.groups, self.radix, -1)).transpose(1, 2).flatten(2)
        return torch.sigmoid(logits) if self.radix == 1 else torch.softmax(logits, dim=1)


class SplitAttn(nn.Module):
    """`y = sum_r a_r * f_r(x)`, the parts f_r of one wide convolution, `[n c *space] -> [n o *space / stride]`.

    Zhang et al., ResNeSt, section 3.1. convolution: a module to radix * o channels, ordered by radix.
    """

    def __init__(self, channels: int, dims: int, convolution: nn.Module, gate: RadixGate) -> None:
        super().__init__()
        self.channels, self.dims = channels, dims
        self.convolution = convolution
        self.squeeze = Mean()
        self.gate = gate

    def _shares(self, parts: torch.Tensor) -> torch.Tensor:
        shares: torch.Tensor = self.gate(self.squeeze(widen(parts).sum(dim=1)))
        return shares

    def _parts(self, x: FeatureMap) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the parts `[n radix o *space]` and their shares `[n radix o]`."""
        check_map("split", x, self.channels, self.dims)
        parts = self.convolution(x).unflatten(1, (self.gate.radix, -1))
        return parts, without_autocast(self._shares, parts)

    def weights(self, x: FeatureMap) -> Weights:
        """Return the factors `[n radix * o]` of the parts; channel i of all parts has a sum of 1 (radix 1: none)."""
        return self._parts(x)[1].flatten(1)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the weighted sum of the parts."""
        parts, shares = self._parts(x)
        return (parts * over_space(shares, x).to(parts.dtype)).sum(dim=1)


def split(
    channels: int,
    *,
    out_channels: Positive | None = None,
    stride: Positive = 1,
    kernel_size: Odd = 3,
    radix: Positive = 2,
    groups: Positive = 1,
    bias: bool = False,
    norm: bool = True,
    reduction: Positive = 4,
    least: Positive = 32,
    divisor: Positive = 1,
    hidden: Positive | None = None,
    dims: Dims = 2,
) -> SplitAttn:
    """Build split attention, which stands for a 3x3 convolution from `channels` to `out_channels`.

    out_channels: None for as many as `channels`; stride, kernel_size, bias: of the convolution; radix: parts that
    compete; groups: the paper's cardinality (radix * groups must divide the channels); norm: batch norms after the
    convolution and inside the bottleneck; reduction, divisor, hidden: of the bottleneck, as in `se`, from radix * c,
    but at least `least` units; dims: space axes. timm: divisor=8.
    """
    outputs = channels if out_channels is None else out_channels
    check_divides("split", "radix * groups", radix * groups, channels, "the channels")
    check_divides("split", "groups", groups, outputs, "the output channels")
    width = hidden_channels(radix * channels, reduction, divisor, hidden, least)
    check_divides("split", "groups", groups, width, "the hidden units")
    layers: list[nn.Module] = [
        conv(dims, channels, radix * outputs, kernel_size, stride=stride, groups=radix * groups, bias=bias)
    ]
    layers += [batch_norm(dims, radix * outputs)] if norm else []
    convolution = nn.Sequential(*layers, nn.ReLU())
    return SplitAttn(channels, dims, convolution, RadixGate(outputs, width, radix, groups, norm))


SPLIT = Method(
    build=split,
    equation="[f_1 .. f_r] = relu(norm(conv3(x))),  a = softmax_r(V relu(norm(W mean(sum_r f_r)))),  "
    "y = sum_r a_r * f_r",
    paper="Zhang, Wu, Zhang, Zhu, Lin, Zhang, Sun, He, Mueller, Manmatha, Li, Smola: ResNeSt: Split-Attention "
    "Networks, CVPR workshops 2022, arXiv:2004.08955, section 3.1",
    place="instead of the 3x3 convolution of a bottleneck",
    role="conv",
    needs=(REDUCTION, Need(("least",), "where hidden is given", lambda o: o["hidden"] is None)),
    equals="zhanghang1989/ResNeSt, timm SplitAttn",
)
