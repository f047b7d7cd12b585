"""EMCA: a gate whose descriptor is fused with the descriptors of earlier blocks. One class for every gate."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from excite.attention import ChannelAttention
from excite.common.checks import Count, Number, Positive, PositiveNumber
from excite.errors import UsageError
from excite.methods.base import Method
from excite.methods.ecanet import ADAPTIVE, Size, eca
from excite.methods.senet import SE, se
from excite.methods.srm import srm
from excite.ops import recalibrate
from excite.ops.precision import without_autocast
from excite.types import Descriptor, FeatureMap, Weights

Form = Literal["paper", "released"]
FORMS: tuple[Form, ...] = get_args(Form)


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
        stacked = torch.stack(tuple(descriptors), dim=-1)
        # Descriptors of blocks under autocast may be of half precision: the wider type of both.
        wide = torch.promote_types(stacked.dtype, self.weight.dtype)
        return torch.relu(stacked.to(wide) @ self.weight.to(wide))


class Emca(ChannelAttention):
    """The paper's module: `w = gate(fusion(context, squeeze(x)))`, `y = w * x`.

    attention: the method whose squeeze and gate are used; scales: 1 + the number of earlier descriptors, or 0 for no
    fusion at all (then this is the method itself). The context, earlier descriptors `[n any k]`, oldest first, is given
    with every call. Raises UsageError for another number of them.
    """

    def __init__(self, attention: ChannelAttention, scales: int) -> None:
        super().__init__(attention.squeeze, attention.gate, attention.channels)
        self.scales = scales
        self.fusion = ScaleFusion(scales) if scales else None

    def _fused(self, descriptor: Descriptor, context: Sequence[Descriptor]) -> Descriptor:
        """Return the descriptor fused with its context, the descriptor itself where nothing is fused."""
        expected = max(0, self.scales - 1)
        if len(context) != expected:
            raise UsageError(f"this EMCA fuses {expected} earlier descriptors, got {len(context)}")
        for earlier in context:
            if earlier.dim() != 3 or earlier.shape[2] != descriptor.shape[2]:
                raise UsageError(
                    f"this EMCA fuses descriptors [n any {descriptor.shape[2]}], "
                    f"got one of shape {tuple(earlier.shape)}"
                )
        if self.fusion is None:
            return descriptor
        return self.fusion([*(align(d, self.channels) for d in context), descriptor])

    def _gated(self, descriptor: Descriptor, *context: Descriptor) -> Weights:
        weights: Weights = self.gate(self._fused(descriptor, context))
        return weights

    def weights_of(self, descriptor: Descriptor, context: Sequence[Descriptor] = ()) -> Weights:
        """Return what the map is multiplied by `[n c]`, from its descriptor and its context, beyond autocast."""
        return without_autocast(self._gated, descriptor, *context)

    def weights(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> Weights:
        """Return what `x` is multiplied by `[n c]` in its context, beyond autocast."""
        self.check(x)
        return without_autocast(lambda maps, *earlier: self._gated(self.squeeze(maps), *earlier), x, *context)

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> FeatureMap:
        """Return the recalibrated map."""
        return recalibrate(x, self.weights(x, context))


class LocalGlobalEmca(Emca):
    """The released code's module: `y = x * (1 + s)`.

    Without fusion `s = local(squeeze(x))`; with it `s = sigmoid(a * local(own) + b * across(relu(sum_r v_r s_r)))`,
    a sigmoid of sigmoids. Blocks of the same stage may be fused too, by weights and a gate of their own:
    `s = sigmoid(a * local + b * across + c * inside)`. All gates are of the same kind.
    build: makes one ChannelAttention; scales: as in `Emca` (0: no earlier stages); within: the number of blocks of the
    same stage that are fused, this one included (0: none). The context holds the earlier stages' descriptors, then the
    stage's own.
    """

    def __init__(self, build: Callable[[], ChannelAttention], scales: int, within: int = 0) -> None:
        super().__init__(build(), 0)
        self.scales, self.within = scales, within
        self.across: nn.Module | None = None
        self.inside: nn.Module | None = None
        if scales:
            self.across = build().gate
            self.fusion = ScaleFusion(scales)  # after `across`: optimizers know parameters by their order
        if within:
            self.inside = build().gate
            self.inside_fusion = ScaleFusion(within)
        if scales or within:
            self.join = nn.Parameter(torch.empty(1 + bool(scales) + bool(within)).uniform_(-(0.5**0.5), 0.5**0.5))

    def _gated(self, descriptor: Descriptor, *context: Descriptor) -> Weights:
        gates: list[Weights] = [self.gate(descriptor)]
        earlier = max(0, self.scales - 1)
        stage = context[earlier:] if self.within else ()
        fused = self._fused(descriptor, context[: len(context) - len(stage)])
        if self.across is not None:
            gates.append(self.across(fused))
        if self.inside is not None:
            if len(stage) != self.within - 1:
                raise UsageError(f"this EMCA fuses {self.within - 1} blocks of its own stage, got {len(stage)}")
            gates.append(self.inside(self.inside_fusion([*stage, descriptor])))
        if len(gates) == 1:
            return 1 + gates[0]
        join = self.join.to(gates[0].dtype)
        joined = join[0] * gates[0]
        for weight, gate in zip(join[1:], gates[1:], strict=True):
            joined = joined + weight * gate
        return 1 + torch.sigmoid(joined)


def emca(build: Callable[[], ChannelAttention], form: Form, scales: int, within: int = 0) -> Emca:
    """Return the module of either form; build: makes the method whose squeeze and gate are used.

    Raises UsageError for the paper's form with blocks of the same stage.
    """
    if form == "paper" and within:
        raise UsageError(f"emca: within={within} belongs to form='released'; the paper's form has one module per stage")
    attention = build()  # in the released form only for the random numbers that it draws: seeds keep their meaning
    return Emca(attention, scales) if form == "paper" else LocalGlobalEmca(build, scales, within)


PAPER = (
    "Bakr et al.: EMCA: Efficient Multi-Scale Channel Attention Module, IEEE Access 2022, "
    "code github.com/eslambakr/EMCA, algorithm 1"
)
PLACE = "one per stage, after its first block, fed with descriptors of earlier stages (as a network: emca_*_resnet50)"


def emca_se(
    channels: int,
    *,
    form: Form = "paper",
    scales: Count = 0,
    within: Count = 0,
    reduction: Positive = 16,
    bias: bool = False,
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> Emca:
    """Build EMCA over `channels` channels with the gate of SE.

    form: "paper" (a reconstruction: no code of it was published) or "released" (the published code); scales: 1 + the
    number of earlier descriptors, 0 for none; within: as in `LocalGlobalEmca` (networks set both);
    the others are those of `se`.
    """
    return emca(
        lambda: se(channels, reduction=reduction, bias=bias, divisor=divisor, hidden=hidden), form, scales, within
    )


EMCA_SE = Method(
    build=emca_se,
    equation="z = relu(sum_r v_r s_r),  s_r = mean of an earlier map, tiled to c channels,  "
    "w = sigmoid(W2 relu(W1 z)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
    needs=SE.needs,
    differs="the default form is a reconstruction from the paper's figures and counts; the released code "
    "with SE stops with an error, no numbers of it could be had",
)


def emca_eca(
    channels: int,
    *,
    form: Form = "paper",
    scales: Count = 0,
    within: Count = 0,
    kernel_size: Size = "adaptive",
    gamma: PositiveNumber = 2,
    b: Number = 1,
) -> Emca:
    """Build EMCA over `channels` channels with the gate of ECA.

    form: "paper" (a reconstruction: no code of it was published) or "released" (the published code); scales: 1 + the
    number of earlier descriptors, 0 for none; within: as in `LocalGlobalEmca` (networks set both);
    the others are those of `eca`.
    """
    return emca(lambda: eca(channels, kernel_size=kernel_size, gamma=gamma, b=b), form, scales, within)


EMCA_ECA = Method(
    build=emca_eca,
    equation="z = relu(sum_r v_r s_r),  s_r = mean of an earlier map, tiled to c channels,  "
    "w = sigmoid(conv1d_k(z)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
    needs=(ADAPTIVE,),
    equals="eslambakr/EMCA, blocks and networks, with form='released'",
    differs="the default form is a reconstruction from the paper's figures and counts; the released code is "
    "another network, no numbers of the paper's could be had",
)


def emca_srm(channels: int, *, form: Form = "paper", scales: Count = 0, within: Count = 0) -> Emca:
    """Build EMCA over `channels` channels with the gate of SRM.

    form: "paper" (a reconstruction: no code of it was published) or "released" (the published code); scales: 1 + the
    number of earlier descriptors, 0 for none; within: as in `LocalGlobalEmca` (networks set both);
    it has no other options.
    """
    return emca(lambda: srm(channels), form, scales, within)


EMCA_SRM = Method(
    build=emca_srm,
    equation="z = relu(sum_r v_r t_r),  t_r = (mean, std) of an earlier map, tiled,  "
    "w = sigmoid(norm(a z_mean + b z_std)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
    differs="the default form is a reconstruction from the paper's figures and counts; the released code "
    "cannot build SRM, no numbers of it could be had",
)
