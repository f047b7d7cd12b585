"""Gates: `descriptor [n c k] -> weights [n c]`, the activation included; of strips `-> strips`, without it.

Strips are joined after their activation (a product) or before it (a sum), so there it belongs to the attention.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from excite.common.checks import check_batch
from excite.ops import known
from excite.ops.correlate import correlate
from excite.types import Descriptor, Strips, Weights

__all__ = [
    "Bottleneck",
    "CircularConv",
    "Competition",
    "FullMatrix",
    "GroupedMatrix",
    "GroupedNorm",
    "HardFullMatrix",
    "LocalConv",
    "LocalMlp",
    "PerChannelLocal",
    "Plain",
    "ReduceExpand",
    "ScalarPerChannel",
    "SharedBottleneck",
    "StripBottleneck",
    "StripConv",
    "StyleNorm",
]

Activation = Literal["sigmoid", "hard_sigmoid"]
"""hard_sigmoid(t) = clip((t + 3) / 6, 0, 1)."""

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "softmax": lambda values: torch.softmax(values, dim=-1),
}

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class Plain(nn.Module):
    """`w = sigmoid(s)`, `[n c 1] -> [n c]` (SE-Var1 of the ECA-Net paper, section 3.2)."""

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the sigmoid of the descriptor."""
        return torch.sigmoid(descriptor.squeeze(-1))


class ScalarPerChannel(nn.Module):
    """`w = sigmoid(a * s)` with a in R^c, `[n c 1] -> [n c]` (SE-Var2 of the ECA-Net paper, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(descriptor.squeeze(-1) * self.weight)


class FullMatrix(nn.Module):
    """`w = sigmoid(W s + b)` with W in R^{c x c}, `[n c 1] -> [n c]` (SE-Var3 of the ECA-Net paper, section 3.2)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels, bias=bias)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(self.fc(descriptor.squeeze(-1).to(self.fc.weight.dtype)))


class HardFullMatrix(nn.Module):
    """`w = hard_sigmoid(W s + b)`, hard_sigmoid(t) = clip((t + 3) / 6, 0, 1), `[n c 1] -> [n c]` (VoVNetV2's eSE)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return F.hardsigmoid(self.fc(descriptor.squeeze(-1).to(self.fc.weight.dtype)))


class GroupedMatrix(nn.Module):
    """`w = sigmoid(W s)` with W block-diagonal, `[n c 1] -> [n c]` (ECA-Net, eq. 4: a group convolution).

    groups: number of blocks; must divide channels.
    """

    def __init__(self, channels: int, groups: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, groups=groups, bias=bias)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(self.conv(descriptor.to(self.conv.weight.dtype)).squeeze(-1))


class ReduceExpand(nn.Module):
    """`expand(relu(norm(reduce(s))))`, the part that bottlenecks share: no gate yet, the activation is missing.

    reduce, expand: linear layers or 1x1 convolutions; norm: after `reduce`, or None. Works in the type of its weights.
    """

    def __init__(self, reduce: Layer, expand: Layer, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.reduce = reduce
        self.norm = norm
        self.act = nn.ReLU()  # a module, as in the references: some counters see only modules
        self.expand = expand

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Return as many numbers as came in, `[... c]` for linear layers, `[n c *space]` for convolutions."""
        hidden: torch.Tensor = self.reduce(s.to(self.reduce.weight.dtype))
        if self.norm is not None:
            hidden = self.norm(hidden)
        expanded: torch.Tensor = self.expand(self.act(hidden))
        return expanded


@known("bottleneck")
class Bottleneck(ReduceExpand):
    """`w = sigmoid(W2 relu(W1 s))`, `[n c 1] -> [n c]` (Hu et al., Squeeze-and-Excitation Networks, eq. 3).

    channels: c; hidden: rows of W1; bias: whether W1 and W2 have biases (authors differ; the paper counts none); norm:
    a batch norm after W1, whose statistics are over the batch alone (one sample in train mode: UsageError).
    """

    def __init__(
        self, channels: int, hidden: int, bias: bool = False, norm: bool = False, activation: Activation = "sigmoid"
    ) -> None:
        reduce, expand = nn.Linear(channels, hidden, bias=bias), nn.Linear(hidden, channels, bias=bias)
        super().__init__(reduce, expand, nn.BatchNorm1d(hidden) if norm else None)
        self.activation = activation

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        if self.norm is not None:
            check_batch("a bottleneck with a norm", self, descriptor)
        return ACTIVATIONS[self.activation](super().forward(descriptor.squeeze(-1)))


class SharedBottleneck(ReduceExpand):
    """`w = sigmoid(sum_k W2 relu(W1 s_k))`, `[n c k] -> [n c]` (CBAM, eq. 2).

    channels: c; hidden: rows of W1; bias: of both layers (Jongchan's code has them, timm's has not); separate:
    `sum_k sigmoid(...)` instead, weights up to k (CPCA, section 3).
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        bias: bool = True,
        activation: Activation = "sigmoid",
        separate: bool = False,
    ) -> None:
        super().__init__(nn.Linear(channels, hidden, bias=bias), nn.Linear(hidden, channels, bias=bias))
        self.activation, self.separate = activation, separate

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        activate, each = ACTIVATIONS[self.activation], super().forward(descriptor.transpose(1, 2))
        return activate(each).sum(dim=1) if self.separate else activate(each.sum(dim=1))


@known("correlation")
class LocalConv(nn.Module):
    """`w = sigmoid(conv1d_k(s))` across channels, one kernel for all, `[n c 1] -> [n c]` (ECA-Net, eq. 7).

    kernel_size: odd k; the ends of the channel axis are zero-padded. Has k parameters.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(correlate(descriptor.squeeze(-1).to(self.conv.weight.dtype), self.conv))


class LocalMlp(nn.Module):
    """`w = sigmoid(conv1d_k(relu(a s + b)))`, a and b in R^hidden, `[n c 1] -> [n c]` (timm's ECA with use_mlp).

    kernel_size: odd k; every channel becomes `hidden` numbers on its own, which the convolution joins across channels.
    """

    def __init__(self, kernel_size: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, hidden, 1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv1d(hidden, 1, kernel_size, padding=(kernel_size - 1) // 2)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        row = descriptor.transpose(1, 2).to(self.conv.weight.dtype)
        return torch.sigmoid(self.conv2(self.act(self.conv(row))).squeeze(1))


class CircularConv(nn.Module):
    """`w = sigmoid(conv1d_k(s))` with circular padding, `[n c 1] -> [n c]`; k parameters.

    kernel_size: odd k, at most the number of channels.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, bias=False)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        pad = self.conv.kernel_size[0] // 2
        ring = F.pad(descriptor.transpose(1, 2).to(self.conv.weight.dtype), (pad, pad), mode="circular")
        return torch.sigmoid(self.conv(ring).squeeze(1))


class PerChannelLocal(nn.Module):
    """`w_c = sigmoid(sum_j a_cj s_{c+j-k//2})`, `[n c 1] -> [n c]` (ECA-Net, eq. 5: the banded matrix W_k).

    kernel_size: odd k; the ends of the channel axis are zero-padded. Has k parameters per channel.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels, bias=False)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        k = self.conv.kernel_size[0]
        padded = F.pad(descriptor.squeeze(-1).to(self.conv.weight.dtype), (k // 2, k // 2))
        return torch.sigmoid(self.conv(padded.unfold(1, k, 1)).squeeze(-1))


@known("style")
class StyleNorm(nn.Module):
    """`w = sigmoid(norm(sum_k a_ck s_ck))`, `[n c k] -> [n c]` (SRM, section 3.2: style integration).

    cfc: the weights a, `[c k]`, zero at the start, so every gate starts at 0.5. The batch norm's statistics are over
    the batch alone: train mode needs at least two samples (UsageError).
    """

    def __init__(self, channels: int, numbers: int = 2) -> None:
        super().__init__()
        self.cfc = nn.Parameter(torch.zeros(channels, numbers))
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        check_batch("srm", self, descriptor)
        return torch.sigmoid(self.bn((descriptor.to(self.cfc.dtype) * self.cfc).sum(dim=-1)))


class Competition(nn.Module):
    """`e = alpha s`, `w = 1 + tanh(gamma e / norm_c(e) + beta)`, `[n c 1] -> [n c]` (GCT, section 3).

    norm: "l2", the root of the mean square over the channels, or "l1", the mean absolute value. alpha is 1, gamma
    and beta are 0 at the start, so the weights start at exactly 1.
    """

    def __init__(self, channels: int, norm: str = "l2", eps: float = 1e-5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.norm, self.eps = norm, eps

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        e = descriptor.squeeze(-1) * self.alpha
        if self.norm == "l2":
            scale = (e.square().mean(dim=1, keepdim=True) + self.eps).rsqrt()
        else:
            scale = 1 / (e.abs().mean(dim=1, keepdim=True) + self.eps)
        return 1 + torch.tanh(self.gamma * e * scale + self.beta)

    def extra_repr(self) -> str:
        """Show the norm."""
        return f"norm={self.norm!r}, eps={self.eps}"


class GroupedNorm(nn.Module):
    """`w = sigmoid(a norm_g(s) + b)`, norm_g over the channels of a group, `[n c 1] -> [n c]` (LCT, section 3).

    groups: must divide channels. a is 1 and b 0 at the start.
    """

    def __init__(self, channels: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(self.norm(descriptor.to(self.norm.weight.dtype)).squeeze(-1))


class StripBottleneck(nn.Module):
    """`V_i act(norm(W s_i))`, W shared by the axes, V_i one per axis, strips -> strips (Coordinate Attention, eq. 6-8).

    The strips are joined along their places, so the norm's statistics are over all of them.
    dims: number of axes; channels: c; hidden: rows of W; bias: of all layers; norm: a batch norm; act: a module.
    """

    def __init__(self, dims: int, channels: int, hidden: int, bias: bool, norm: bool, act: nn.Module) -> None:
        super().__init__()
        self.reduce = nn.Conv1d(channels, hidden, 1, bias=bias)
        self.norm = nn.BatchNorm1d(hidden) if norm else None
        self.act = act
        self.expand = nn.ModuleList(nn.Conv1d(hidden, channels, 1, bias=bias) for _ in range(dims))

    def forward(self, strips: Strips) -> Strips:
        """Return the strips before their activation."""
        hidden: torch.Tensor = self.reduce(torch.cat(strips, dim=2).to(self.reduce.weight.dtype))
        if self.norm is not None:
            hidden = self.norm(hidden)
        parts = self.act(hidden).split([strip.shape[2] for strip in strips], dim=2)
        return tuple(expand(part) for expand, part in zip(self.expand, parts, strict=True))


class StripConv(nn.Module):
    """`act(norm_i(dw_i(s_i)))`, dw_i a depth-wise convolution along axis i, strips -> strips (ELA, section 3).

    convs, norms: one module per axis, or one for all of them; norms may be none; act: a module or None.
    """

    def __init__(self, convs: Sequence[nn.Conv1d], norms: Sequence[nn.Module], act: nn.Module | None) -> None:
        super().__init__()
        self.convs, self.norms, self.act = nn.ModuleList(convs), nn.ModuleList(norms), act

    def _strip(self, axis: int, strip: torch.Tensor) -> torch.Tensor:
        conv = self.convs[axis % len(self.convs)]
        strip = conv(strip.to(conv.weight.dtype))  # type: ignore[arg-type]  # a module's attributes have no types
        if len(self.norms) > 0:
            strip = self.norms[axis % len(self.norms)](strip)
        return strip if self.act is None else self.act(strip)

    def forward(self, strips: Strips) -> Strips:
        """Return the strips before their activation."""
        return tuple(self._strip(axis, strip) for axis, strip in enumerate(strips))
