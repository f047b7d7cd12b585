"""EMCA: a gate whose descriptor is fused with the descriptors of earlier blocks. One class for every gate."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.methods.base import Method
from excite.methods.ecanet import eca
from excite.methods.senet import se
from excite.methods.srm import srm
from excite.ops import recalibrate
from excite.types import Descriptor, FeatureMap, Weights

FORMS = ("paper", "released")


def align(descriptor: Descriptor, channels: int) -> Descriptor:
    """Repeat `[n c k]` along the channels until it has `channels` of them: channel j sees channel j mod c."""
    own = descriptor.shape[1]
    if own == channels:
        return descriptor
    if channels % own == 0:
        return descriptor.repeat(1, channels // own, 1)
    return descriptor.repeat(1, -(-channels // own), 1)[:, :channels]


class ScaleFusion(nn.Module):
    """`relu(sum_r v_r s_r)`: one weight per scale, shared by all channels (EMCA, algorithm 1, line 7).

    scales: number of descriptors, oldest first, the block's own last. The weights start as the average, so that the
    rectifier does not start dead.
    """

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((scales,), 1.0 / scales))

    def forward(self, descriptors: Sequence[Descriptor]) -> Descriptor:
        """Return the fused descriptor, `[n c k]`."""
        return torch.relu(torch.stack(tuple(descriptors), dim=-1) @ self.weight.to(descriptors[0].dtype))


class Emca(ChannelAttention):
    """The paper's module: `w = gate(fusion(context, squeeze(x)))`, `y = w * x`.

    attention: the method whose squeeze and gate are used; scales: 1 + the number of earlier descriptors, or 0 for no
    fusion at all (then this is the method itself).
    """

    def __init__(self, attention: ChannelAttention, scales: int) -> None:
        super().__init__(attention.squeeze, attention.gate, attention.channels)
        self.scales = scales
        self.fusion = ScaleFusion(scales) if scales else None

    def factor(self, descriptor: Descriptor, context: Sequence[Descriptor]) -> Weights:
        """Return what the map is multiplied by, `[n c]`, from its descriptor and those of earlier blocks."""
        if len(context) != max(0, self.scales - 1):
            raise UsageError(f"this EMCA fuses {max(0, self.scales - 1)} earlier descriptors, got {len(context)}")
        if self.fusion is not None:
            descriptor = self.fusion([*(align(d, self.channels) for d in context), descriptor])
        return self.gate(descriptor)

    def weights(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> Weights:
        """Return the weights `[n c]` of `x` in its context."""
        return self.factor(self.squeeze(x), context)

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> FeatureMap:
        """Return the recalibrated map."""
        self.check(x)
        return recalibrate(x, self.weights(x, context))


class LocalGlobalEmca(nn.Module):
    """The released code's module: `y = x * (1 + s)`.

    Without context `s = local(squeeze(x))`; with it `s = sigmoid(a * local(own) + b * across(relu(sum_r v_r s_r)))`,
    a sigmoid of sigmoids. local and across are two gates of the same kind.
    build: makes one ChannelAttention; scales: as in `Emca` (0: the local gate alone).
    """

    def __init__(self, build: Callable[[], ChannelAttention], scales: int) -> None:
        super().__init__()
        local = build()
        self.channels, self.scales = local.channels, scales
        self.squeeze, self.gate = local.squeeze, local.gate
        self.across: nn.Module | None = None
        self.fusion: ScaleFusion | None = None
        if scales:
            self.across = build().gate
            self.fusion = ScaleFusion(scales)
            self.join = nn.Parameter(torch.empty(2).uniform_(-(0.5**0.5), 0.5**0.5))

    def factor(self, descriptor: Descriptor, context: Sequence[Descriptor]) -> Weights:
        """Return what the map is multiplied by, `[n c]`: 1 + s."""
        local = self.gate(descriptor)
        if self.fusion is None or self.across is None:
            return 1 + local
        wide = self.fusion([*(align(d, self.channels) for d in context), descriptor])
        join = self.join.to(local.dtype)
        return 1 + torch.sigmoid(join[0] * local + join[1] * self.across(wide))

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> FeatureMap:
        """Return the recalibrated map."""
        return recalibrate(x, self.factor(self.squeeze(x), context))


def emca(build: Callable[[], nn.Module], *, form: str = "paper", scales: int = 0) -> nn.Module:
    """Build the module of either form. Raises UsageError for another form or a negative number of scales."""
    if form not in FORMS:
        raise UsageError(f"emca: form {form!r}; it is one of {', '.join(map(repr, FORMS))}")
    if scales < 0:
        raise UsageError(f"emca: scales must not be negative, got {scales}")
    made = build()
    if not isinstance(made, ChannelAttention):
        raise UsageError("emca: only methods made of a squeeze and a gate can be fused across scales")
    if form == "paper":
        return Emca(made, scales)
    return LocalGlobalEmca(build, scales)  # type: ignore[arg-type]


PAPER = (
    "Bakr et al.: EMCA: Efficient Multi-Scale Channel Attention Module, IEEE Access 2022, "
    "code github.com/eslambakr/EMCA, algorithm 1"
)
PLACE = "one per stage, after its first block, fed with descriptors of earlier stages (as a network: emca_*_resnet50)"


def emca_se(
    channels: int,
    *,
    form: str = "paper",
    scales: int = 0,
    reduction: int = 16,
    bias: bool = False,
    divisor: int = 1,
    hidden: int | None = None,
) -> nn.Module:
    """Build EMCA over `channels` channels with the gate of SE.

    form: "paper" or "released"; scales: 1 + the number of earlier descriptors, 0 for none (networks set it); the others
    are those of `se`.
    """
    return emca(
        lambda: se(channels, reduction=reduction, bias=bias, divisor=divisor, hidden=hidden), form=form, scales=scales
    )


EMCA_SE = Method(
    build=emca_se,
    equation="z = relu(sum_r v_r s_r),  s_r = mean of an earlier map, tiled to c channels,  "
    "w = sigmoid(W2 relu(W1 z)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
)


def emca_eca(
    channels: int,
    *,
    form: str = "paper",
    scales: int = 0,
    kernel_size: int | str = "adaptive",
    gamma: float = 2,
    b: float = 1,
) -> nn.Module:
    """Build EMCA over `channels` channels with the gate of ECA.

    form: "paper" or "released"; scales: 1 + the number of earlier descriptors, 0 for none (networks set it); the others
    are those of `eca`.
    """
    return emca(lambda: eca(channels, kernel_size=kernel_size, gamma=gamma, b=b), form=form, scales=scales)


EMCA_ECA = Method(
    build=emca_eca,
    equation="z = relu(sum_r v_r s_r),  s_r = mean of an earlier map, tiled to c channels,  "
    "w = sigmoid(conv1d_k(z)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
)


def emca_srm(channels: int, *, form: str = "paper", scales: int = 0) -> nn.Module:
    """Build EMCA over `channels` channels with the gate of SRM.

    form: "paper" or "released"; scales: 1 + the number of earlier descriptors, 0 for none (networks set it); it has
    no other options.
    """
    return emca(lambda: srm(channels), form=form, scales=scales)


EMCA_SRM = Method(
    build=emca_srm,
    equation="z = relu(sum_r v_r t_r),  t_r = (mean, std) of an earlier map, tiled,  "
    "w = sigmoid(norm(a z_mean + b z_std)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
)
