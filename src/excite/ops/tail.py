"""The residual tail, everything between the last convolution of a block and the block's output, and parts of it.

A compiler is asked nothing of sizes and kernels: it sees plain operations, and no guards on them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from excite.ops.eligible import why_not, why_not_alone, why_not_described
from excite.ops.recalibrate import recalibrate
from excite.ops.select import ALONE, ATTENTION, INSIDE, PLAIN, kernels_for
from excite.types import Descriptor, FeatureMap, Weights

Act = Callable[[FeatureMap], FeatureMap] | None


def residual_tail(
    z: FeatureMap, norm: nn.Module, attention: nn.Module | None, shortcut: FeatureMap | None, act: Act
) -> FeatureMap:
    """Return `act(attention(norm(z)) + shortcut)`, `[n c h w]`; each of `attention`, `shortcut`, `act` may be None.

    z: output of the block's last convolution. `norm` updates its running statistics in train mode as always. Where it
    is exact and pays, the fused form runs (`excite.ops.use`); hooks on the gate see the same either way.
    """
    if not torch.compiler.is_compiling():
        kernels = kernels_for(z, PLAIN if attention is None else ATTENTION)
        if kernels is not None and why_not(z, norm, attention, shortcut) is None:
            from excite.ops.fused import fused_tail

            if isinstance(attention, nn.Identity):
                attention = None
            parts: Any = attention
            squeeze, weigh = (None, None) if parts is None else (parts.squeeze, parts.weights_of)
            if parts is not None:
                parts.check(z)
            return fused_tail(z, norm, squeeze, weigh, shortcut, act, kernels)[0]
    y = norm(z)
    if attention is not None:
        y = attention(y)
    if shortcut is not None:
        y = y + shortcut
    return act(y) if act is not None else y


def attend(x: FeatureMap, attention: Any) -> FeatureMap:
    """Return `recalibrate(x, attention.weights(x))` of a squeeze and gate that stands alone, fused where that pays.

    Two passes forward and two back, as in the tail, and only `x` is kept.
    """
    if not torch.compiler.is_compiling():
        kernels = kernels_for(x, ALONE)
        if kernels is not None and why_not_alone(x, attention) is None:
            from excite.ops.fused import fused_tail, unit_norm

            given = unit_norm(x.shape[1], x.device), attention.squeeze, attention.weights_of
            return fused_tail(x, *given, None, None, kernels)[0]
    return recalibrate(x, attention.weights(x))


def norm_act(z: FeatureMap, norm: nn.Module, act: Act) -> FeatureMap:
    """Return `act(norm(z))`, `[n c h w]`, of the layers inside a block, fused where that was measured to pay."""
    if not torch.compiler.is_compiling():
        kernels = kernels_for(z, INSIDE)
        if kernels is not None and why_not(z, norm, None, None) is None:
            from excite.ops.fused import fused_tail

            return fused_tail(z, norm, None, None, None, act, kernels)[0]
    y = norm(z)
    return act(y) if act is not None else y


def described_tail(
    z: FeatureMap,
    norm: nn.Module,
    squeeze: nn.Module,
    weigh: Callable[[Descriptor], Weights] | None,
    shortcut: FeatureMap | None,
    act: Act,
) -> tuple[FeatureMap, Descriptor]:
    """Return `act(y * weigh(s) + shortcut)` and the descriptor `s = squeeze(y)` `[n c k]`, where `y = norm(z)`.

    For attention that looks beyond its own block: `weigh` maps the descriptor to weights `[n c]` (None: 1) and may use
    whatever else it knows. Otherwise as `residual_tail`.
    """
    if not torch.compiler.is_compiling():
        kernels = kernels_for(z, ATTENTION)
        if kernels is not None and why_not_described(z, norm, squeeze, shortcut) is None:
            from excite.ops.fused import fused_tail

            out, descriptor = fused_tail(z, norm, squeeze, weigh, shortcut, act, kernels)
            assert descriptor is not None
            return out, descriptor
    y = norm(z)
    descriptor = squeeze(y)
    if weigh is not None:
        y = recalibrate(y, weigh(descriptor))
    if shortcut is not None:
        y = y + shortcut
    return (act(y) if act is not None else y), descriptor
