"""GCNet: global context."""

from typing import Literal

import torch
from torch import nn

from excite.common.checks import Positive, PositiveNumber, check_map
from excite.gates import ACTIVATIONS, Activation, ReduceExpand
from excite.methods.base import REDUCTION, Method, Need
from excite.methods.nd import over_space
from excite.methods.widths import hidden_channels
from excite.ops import recalibrate
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap, Weights


class ContextTransform(ReduceExpand):
    """`W2 relu(layer_norm(W1 s))`, `[n c] -> [n c]` (GCNet, figure 4d); zero: W2 and its bias start at 0."""

    def __init__(self, channels: int, hidden: int, zero: bool, eps: float) -> None:
        reduce, expand = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        super().__init__(reduce, expand, nn.LayerNorm(hidden, eps=eps))
        if zero:
            nn.init.zeros_(expand.weight)
            nn.init.zeros_(expand.bias)


class GlobalContext(nn.Module):
    """A softmax over positions pools one context vector, added to or multiplying every position (GCNet, eq. 5)."""

    def __init__(
        self, channels: int, hidden: int, pool: str, fusion: str, zero: bool, eps: float, activation: Activation
    ) -> None:
        super().__init__()
        self.channels, self.activation = channels, activation
        self.mask = nn.Conv1d(channels, 1, 1) if pool == "attention" else None
        self.scale = ContextTransform(channels, hidden, zero, eps) if fusion in ("multiply", "both") else None
        self.shift = ContextTransform(channels, hidden, zero, eps) if fusion in ("add", "both") else None

    def _context(self, x: FeatureMap) -> torch.Tensor:
        flat = widen(x).flatten(2)
        if self.mask is None:
            return flat.mean(dim=2)
        logits = self.mask(flat.to(self.mask.weight.dtype))
        return torch.matmul(flat, torch.softmax(logits.to(flat.dtype), dim=2).transpose(1, 2)).squeeze(2)

    def _terms(self, x: FeatureMap) -> tuple[Weights | None, torch.Tensor | None]:
        context = self._context(x)
        scale = None if self.scale is None else ACTIVATIONS[self.activation](self.scale(context))
        return scale, None if self.shift is None else self.shift(context)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map with its context."""
        check_map("gc", x, self.channels)
        scale, shift = without_autocast(self._terms, x)
        y = x if scale is None else recalibrate(x, scale)
        return y if shift is None else y + over_space(shift.to(x.dtype), x)


class ScalingContext(GlobalContext):
    """The same where the context multiplies (fusion "multiply" or "both")."""

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` that `x` is multiplied by, before anything is added."""
        check_map("gc", x, self.channels)
        weights: Weights = without_autocast(self._terms, x)[0]
        return weights


def gc(
    channels: int,
    *,
    reduction: Positive = 16,
    pool: Literal["attention", "average"] = "attention",
    fusion: Literal["add", "multiply", "both"] = "add",
    zero_init: bool = True,
    eps: PositiveNumber = 1e-5,
    gate: Activation = "sigmoid",
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> GlobalContext:
    """Build GCNet's block over `channels` channels.

    reduction, divisor, hidden: of the transform, as in `se`; pool: "attention" (softmax over positions) or "average";
    fusion: "add", "multiply" (by the gate) or "both", the product first; gate: "sigmoid" or "hard_sigmoid"; zero_init:
    the last layer starts at 0, so that "add" starts as the identity; eps: of the layer norm. timm's default is
    fusion="multiply", reduction=8, zero_init=False, eps=1e-6.
    """
    kind = GlobalContext if fusion == "add" else ScalingContext
    return kind(channels, hidden_channels(channels, reduction, divisor, hidden), pool, fusion, zero_init, eps, gate)


GC = Method(
    build=gc,
    equation="s = sum_p softmax_p(v x) x_p,  y = x + W2 relu(layer_norm(W1 s))",
    paper="Cao, Xu, Lin, Wei, Hu: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, "
    "ICCV workshops 2019, arXiv:1904.11492, eq. 5",
    identity_at_init=True,
    needs=(
        REDUCTION,
        Need(("gate",), "where the context is only added (fusion='add')", lambda o: o["fusion"] != "add"),
    ),
    equals="xvjiarui/GCNet, timm GlobalContext",
)
