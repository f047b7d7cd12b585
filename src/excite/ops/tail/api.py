"""What blocks call: the end of a block as one operation where that is exact and pays, else its modules in turn."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from excite.errors import UsageError
from excite.ops.mode import mode
from excite.ops.precision import without_autocast
from excite.ops.recalibrate import recalibrate
from excite.ops.tail import operators
from excite.ops.tail.autograd import AffineTail, Link, Standardise, Standardised
from excite.ops.tail.gated import Correlation, Gate, GatedTail, Job, gate_of, run
from excite.ops.tail.kernels import Affine, Kernels
from excite.ops.tail.moments import Moments, describe, normalise, projection_basis, settings_of
from excite.ops.tail.plan import (
    ALONE,
    ATTENTION,
    CARRIED,
    GATED,
    GATED_ALONE,
    INSIDE,
    NORMS,
    PLAIN,
    TRACED,
    Part,
    Request,
    ceiling_of,
    form_of,
    is_globally_hooked,
    is_hooked,
    is_transformed,
    is_unwatched,
    plan,
)
from excite.types import Descriptor, FeatureMap, Weights

# Any: the plan has looked at what norm, squeeze and attention are; the checker sees modules.

Act = Callable[[FeatureMap], FeatureMap] | None
Weigh = Callable[[Descriptor], Weights] | None
WIDE = {torch.float32, torch.float64}


def residual_tail(
    z: FeatureMap,
    norm: nn.Module,
    attention: nn.Module | None,
    shortcut: FeatureMap | None,
    act: Act,
    keep: torch.Tensor | None = None,
) -> FeatureMap:
    """Return `act(attention(norm(z)) + shortcut)`, `[n c h w]`; each of `attention`, `shortcut`, `act` may be None.

    z: output of the block's last convolution; keep: what each image's branch is multiplied by before the addition,
    `[n]` (stochastic depth). `norm` updates its running statistics in train mode as always. Where it
    is exact and pays, the fused form runs (`excite.ops.use`); hooks on the gate see the same either way.
    """
    part = PLAIN if attention is None else part_of(attention, ATTENTION)
    kernels = plan(Request(part, z, norm, attention, None, shortcut)).kernels
    if kernels is not None:
        if attention is None or isinstance(attention, nn.Identity):
            return fused_tail(z, norm, None, None, shortcut, act, kernels, keep)[0]
        parts: Any = attention  # a squeeze and gate, says the plan
        parts.check(z)
        return fused_tail(z, norm, parts.squeeze, parts.weights_of, shortcut, act, kernels, keep, parts.gate)[0]
    own = owns(norm, attention)
    y = norm(z)
    del z  # where the caller has no name for it either, its memory is free for what follows
    if attention is not None:  # under the same name, so that the map before it is not kept through the addition
        y = scale(y, attention) if own else attention(y)
    return _finish(y, shortcut, act, keep, own)


def owns(norm: nn.Module, attention: nn.Module | None, squeeze: nn.Module | None = None) -> bool:
    """Tell whether what a norm returns may be written over: no gradients, and nobody else can hold it.

    A plain norm always makes a new map. It is handed to the squeeze of `attention` (or `squeeze`) alone, unless hooks
    on these, or on every module, see it. Programs that are traced hold plain operations.
    """
    if torch.is_grad_enabled() or is_transformed() or mode() == "reference" or is_globally_hooked():
        return False
    if type(norm) not in NORMS or is_hooked(norm) or (squeeze is not None and is_hooked(squeeze)):
        return False
    return attention is None or is_unwatched(attention)


def scale(y: FeatureMap, attention: Any) -> FeatureMap:
    """Multiply `y` by the weights of a squeeze and gate, in place; only where `y` is nobody else's (`owns`)."""
    if type(y) is not torch.Tensor:
        scaled: FeatureMap = attention(y)
        return scaled
    weights = attention.weights(y)
    return y.mul_(weights.to(y.dtype).reshape(weights.shape + (1,) * (y.dim() - 2)))


def attend(x: FeatureMap, attention: Any) -> FeatureMap:
    """Return `recalibrate(x, attention.weights(x))` of a squeeze and gate that stands alone, fused where that pays.

    Two passes forward and two back, as in the tail, and only `x` is kept.
    """
    kernels = plan(Request(part_of(attention, ALONE), x, None, attention)).kernels
    if kernels is not None:
        norm = unit_norm(x.shape[1], x.device)
        parts = attention.squeeze, attention.weights_of
        return fused_tail(x, norm, *parts, None, None, kernels, None, attention.gate)[0]
    return recalibrate(x, attention.weights(x))


def attend_norm(z: FeatureMap, norm: nn.Module, kind: type, attention: Any) -> FeatureMap | None:
    """Return `attention(norm(z))` as one operation, for a norm that carries its attention; None where it does not pay.

    kind: the norm's class without the attention. Called from within the norm's own call, so its hooks run as ever.
    """
    kernels = plan(Request(part_of(attention, CARRIED), z, norm, attention, kind=kind)).kernels
    if kernels is None:
        return None
    attention.check(z)
    parts = attention.squeeze, attention.weights_of
    return fused_tail(z, norm, *parts, None, None, kernels, None, attention.gate)[0]


def part_of(attention: nn.Module, other: Part) -> Part:
    """Return the part of attention whose gate the tail does itself, else `other`."""
    if torch.compiler.is_compiling():
        return other
    form = form_of(attention._modules.get("gate"))
    return other if form is None else (GATED_ALONE if other is ALONE else GATED).get(form, other)


def attend_own(y: FeatureMap, attention: Any) -> FeatureMap:
    """Return `attention(y)` of a map that nobody else holds: without gradients it is scaled in place."""
    alone = not torch.is_grad_enabled() and mode() != "reference" and not is_transformed() and not is_globally_hooked()
    if alone and is_unwatched(attention):
        return scale(y, attention)
    attended: FeatureMap = attention(y)
    return attended


def norm_act(z: FeatureMap, norm: nn.Module, act: Act) -> FeatureMap:
    """Return `act(norm(z))`, `[n c h w]`, of the layers inside a block, fused where that was measured to pay."""
    kernels = plan(Request(INSIDE, z, norm)).kernels
    if kernels is not None:
        return fused_tail(z, norm, None, None, None, act, kernels)[0]
    y = norm(z)
    del z
    return _finish(y, None, act)


def described_tail(
    z: FeatureMap,
    norm: nn.Module,
    squeeze: nn.Module,
    weigh: Weigh,
    shortcut: FeatureMap | None,
    act: Act,
    keep: torch.Tensor | None = None,
) -> tuple[FeatureMap, Descriptor]:
    """Return `act(y * weigh(s) + shortcut)` and the descriptor `s = squeeze(y)` `[n c k]`, where `y = norm(z)`.

    For attention that looks beyond its own block: `weigh` maps the descriptor to weights `[n c]` (None: 1) and may use
    whatever else it knows. Otherwise as `residual_tail`.
    """
    kernels = plan(Request(ATTENTION, z, norm, None, squeeze, shortcut)).kernels
    if kernels is not None:
        out, fused_descriptor = fused_tail(z, norm, squeeze, weigh, shortcut, act, kernels, keep)
        assert fused_descriptor is not None
        return out, fused_descriptor
    own = owns(norm, None, squeeze)
    y = norm(z)
    del z
    descriptor: Descriptor = squeeze(y)
    if weigh is not None:
        y = recalibrate(y, weigh(descriptor))
    return _finish(y, shortcut, act, keep, own), descriptor


def _finish(
    y: FeatureMap, shortcut: FeatureMap | None, act: Act, keep: torch.Tensor | None = None, own: bool = False
) -> FeatureMap:
    # own: whether y may be written over.
    if keep is not None:
        y = y * keep.to(y.dtype).reshape(-1, *(1,) * (y.dim() - 1))
    if shortcut is not None:
        alike = (
            own and type(y) is type(shortcut) is torch.Tensor and (y.shape, y.dtype) == (shortcut.shape, shortcut.dtype)
        )
        y = y.add_(shortcut) if alike else y + shortcut
    return y if act is None else act(y)


def fused_tail(
    z: FeatureMap,
    norm: Any,
    squeeze: Any,
    weigh: Weigh,
    shortcut: FeatureMap | None,
    act: Act,
    kernels: Kernels,
    keep: torch.Tensor | None = None,
    gate: nn.Module | None = None,
) -> tuple[FeatureMap, Descriptor | None]:
    """Return the output and the descriptor of the normalised map (None without a squeeze, or with `gate`).

    norm: a batch norm; squeeze: has `from_statistics` or `from_projection`, or is None; weigh: the gate, or None for no
    scaling; act: anything, though only plain rectifiers are part of the second pass; kernels: what runs the passes;
    keep: as in `residual_tail`; gate: the module behind `weigh`, where `weigh` does no more than it.
    """
    learning = torch.is_grad_enabled()
    ceiling = ceiling_of(act)
    ceiling = ceiling if ceiling in kernels.ceilings else None
    form = gate_of(squeeze, gate, z) if gate is not None and keep is None and kernels.gated else None
    if form is not None and (learning or isinstance(form, Correlation)):
        out = gated_tail(z, norm, squeeze, form, shortcut, ceiling)
        if out is not None:
            return (out if ceiling is not None or act is None else act(out)), None
    if not learning and keep is None and not norm.training and (squeeze is None or takes_means(squeeze)):
        quick = kernels.inferred(z, norm, squeeze is not None) if norm.running_mean is not None else None
        if quick is not None:
            means, numbers = quick
            descriptor = None if means is None else squeeze.from_statistics(means, None, 0).to(z.dtype)
            if form is not None and means is not None:
                weights = without_autocast(form.weigh, means.to(z.dtype).to(means.dtype), None)[0]
            else:
                weights = None if weigh is None or descriptor is None else fitting(weigh(descriptor), z)
            out = kernels.attended(z, numbers, weights, shortcut, ceiling)
            return (out if ceiling is not None or act is None else act(out)), descriptor
    with torch.autocast(z.device.type, enabled=False) if torch.is_autocast_enabled(z.device.type) else nullcontext():
        settings = settings_of(norm, squeeze, z)
        given = z, projection_basis(squeeze, z), norm.weight, norm.bias, settings
        link, carrier, descriptor = None, None, None
        if kernels is TRACED:
            carriers, y = operators.normalised(z, norm, settings)
        elif not learning:
            y = kernels.standardise(*given).normalised
        elif settings.batch or settings.first:
            link = Link()
            ends = Standardised(*Standardise.apply(*given, link, kernels))
            z, carrier, y = ends.z, ends.carrier, ends.normalised
        else:
            # The running statistics normalise and nobody squeezes: no moment of z is needed.
            y = normalise(Moments(None, None, None), norm.weight, norm.bias, None, settings).normalised
        if squeeze is not None:
            descriptor = describe(squeeze, y, settings.positions, z)
    weights = None
    if weigh is not None and descriptor is not None:
        weights = fitting(weigh(descriptor), z)
    if keep is not None:
        factors = keep[:, None].to(y.scale.dtype)
        weights = factors.expand(z.shape[:2]).contiguous() if weights is None else weights * factors.to(weights.dtype)
    if kernels is TRACED:
        out = operators.tail(z, *carriers, y.scale, y.bias, y.mu, weights, shortcut, ceiling is not None)
    elif learning:
        out = AffineTail.apply(z, carrier, y.scale, y.bias, y.mu, weights, shortcut, ceiling, link, kernels)
    else:
        out = kernels.scaled(z, Affine(y.scale, y.bias, y.mu, weights), shortcut, ceiling)
    return (out if ceiling is not None or act is None else act(out)), descriptor


def gated_tail(
    z: FeatureMap, norm: Any, squeeze: Any, gate: Gate, shortcut: FeatureMap | None, ceiling: float | None
) -> FeatureMap | None:
    """Return the tail with a known gate as one operation; None where the norm's tensors differ in type or have gaps."""
    numbers = norm.weight, norm.bias, norm.running_mean, norm.running_var
    kinds = {x.dtype for x in numbers if x is not None}
    if len(kinds) > 1 or not kinds <= WIDE or not all(x is None or x.is_contiguous() for x in numbers):
        return None
    job = Job(gate, settings_of(norm, squeeze, z), ceiling)
    if not torch.is_grad_enabled():
        return run(job, z, shortcut, norm.weight, norm.bias)[0]
    with torch.autocast(z.device.type, enabled=False) if torch.is_autocast_enabled(z.device.type) else nullcontext():
        out: FeatureMap = GatedTail.apply(job, z, shortcut, norm.weight, norm.bias, *gate.parameters)
    return out


def takes_means(squeeze: Any) -> bool:
    """Tell whether a squeeze is a function of the mean of every channel alone."""
    kind = type(squeeze)
    return hasattr(kind, "from_statistics") and not kind.needs_second_moment and not hasattr(kind, "from_projection")


def fitting(weights: Weights, z: FeatureMap) -> Weights:
    """Return weights `[n c]`, broadcast where the gate gave fewer (`[1 c]`, say): kernels read them by address.

    Raises UsageError for other shapes and for another device than that of `z`.
    """
    shape = z.shape[:2]
    if weights.device == z.device:
        if weights.shape == shape:
            return weights
        if weights.dim() <= 2:
            with suppress(RuntimeError):
                return weights.expand(shape)
    raise UsageError(
        f"the gate gave weights of shape {tuple(weights.shape)} on {weights.device} for a map of shape "
        f"{tuple(z.shape)} on {z.device}; expected {tuple(shape)}"
    )


class Unit:
    """A batch norm that changes nothing: mean 0 and variance 1, no eps, no parameters."""

    weight = bias = momentum = num_batches_tracked = None
    training, eps = False, 0.0

    def __init__(self, channels: int, device: torch.device) -> None:
        self.running_mean = torch.zeros(channels, device=device)
        self.running_var = torch.ones(channels, device=device)


@lru_cache(maxsize=64)
def unit_norm(channels: int, device: torch.device) -> Unit:
    """Return the norm that changes nothing, for attention without one."""
    return Unit(channels, device)
