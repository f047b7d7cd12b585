"""The fused tail in compiled programs: operators that a compiler does not look into, and plain operations between them.

    z ─> standardise ─> scale, bias, mu `[c]`, moments of the normalised map `[n c]` ─> squeeze ─> gate ─> w ─┐
              └─────> carrier, carrier_a ─> tail: relu(w (scale (z - mu) + bias) + shortcut)

The compiler sees two operators forward and two backward, and fuses what lies between. As in `autograd`, the gradient
of z is made in one pass: what `tail` knows of it, `a g`, goes back by the carriers, g as the gradient of a map that
holds no memory and a as that of numbers `[n c]`. Nothing waits for the device, so CUDA graphs can hold the operators. A
second derivative there is not.
"""

import math
from typing import Any

import torch
from torch import Tensor

from excite.ops.precision import wide_type
from excite.ops.tail.kernels import Affine, Carried
from excite.ops.tail.moments import Normalised, NormalisedGrads, Saved, Settings, move_running
from excite.ops.tail.plan import fastest

# Any: torch calls autograd formulas with a context that has no type.

Numbers = Tensor | None


def settings(z: Tensor, eps: float, second: bool) -> Settings:
    """Return what there is to compute: the batch's statistics, and what a squeeze needs; nothing is moved."""
    positions = z.numel() // (z.shape[0] * z.shape[1])
    return Settings(eps, True, None, 0.0, True, second, positions)


def unshared(x: Tensor, *others: Numbers) -> Tensor:
    """Return `x`, or a copy where it shares memory with one of the others: an operator's results are its own."""
    places = {other.untyped_storage().data_ptr() for other in others if other is not None}
    return x.clone() if x.untyped_storage().data_ptr() in places else x


def empty(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers that are not there: operators return tensors."""
    return z.new_empty(0, dtype=dtype)


def or_none(x: Numbers) -> Numbers:
    """Return None for numbers that are not there."""
    return None if x is None or x.numel() == 0 else x


@torch.library.custom_op("excite::standardise", mutates_args=())
def standardise(
    z: Tensor, gamma: Numbers, beta: Numbers, eps: float, second: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return carrier, carrier_a, scale, bias, mu, inverse `[c]`, mean, variance of z, first, second of y `[n c]`.

    y is the map that the batch's own statistics normalise. second: whether its variances are wanted; else they and
    those of z are empty. The running statistics are the caller's to move: `var = inverse^-2 - eps`.
    """
    moments, inverse, y = fastest(z).standardise(z, None, gamma, beta, settings(z, eps, second))
    wide = wide_type(z)
    assert moments.mean is not None
    assert y.mean is not None
    variance = moments.variance if second and moments.variance is not None else empty(z, wide)
    spread = empty(z, wide) if y.variance is None else y.variance
    scale, bias = unshared(y.scale, inverse, gamma), unshared(y.bias, beta)
    carriers = z.new_zeros(()).expand(z.shape), z.new_zeros((), dtype=wide).expand(z.shape[:2])
    return (*carriers, scale, bias, y.mu, inverse, moments.mean, variance, y.mean, spread)


@standardise.register_fake
def _(z: Tensor, gamma: Numbers, beta: Numbers, eps: float, second: bool) -> tuple[Tensor, ...]:
    wide, (n, c) = wide_type(z), z.shape[:2]
    carriers = z.new_zeros(()).expand(z.shape), z.new_zeros((), dtype=wide).expand(n, c)
    per_channel = (z.new_empty(c, dtype=torch.float64) for _ in range(4))
    mean, variance, first, spread = (z.new_empty((n, c) if i % 2 == 0 or second else 0, dtype=wide) for i in range(4))
    return (*carriers, *per_channel, mean, variance, first, spread)


@torch.library.custom_op("excite::standardise_backward", mutates_args=())
def standardise_backward(
    g: Numbers,
    a: Numbers,
    for_scale: Numbers,
    for_bias: Numbers,
    for_mu: Numbers,
    for_first: Numbers,
    for_second: Numbers,
    z: Tensor,
    gamma: Numbers,
    beta: Numbers,
    scale: Tensor,
    mu: Tensor,
    inverse: Tensor,
    mean: Tensor,
    variance: Numbers,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of z, gamma and beta (empty without one): `a g + q (z - mu) + p` in one pass."""
    saved = Saved(z, None, gamma, beta, mean, or_none(variance), None, scale, mu, inverse)
    grads = NormalisedGrads(for_scale, for_bias, for_mu, for_first, for_second, None)
    carried = None if g is None or a is None else Carried(g, a.contiguous())
    gradients = fastest(z).grad_standardise(saved, carried, grads, settings(z, eps, for_second is not None))
    dz = torch.zeros_like(z) if gradients.z is None else unshared(gradients.z, g)
    absent = empty(z, torch.float64)
    for_gamma = absent if gamma is None else torch.zeros_like(gamma) if gradients.gamma is None else gradients.gamma
    for_beta = absent.clone() if beta is None else torch.zeros_like(beta) if gradients.beta is None else gradients.beta
    return dz, for_gamma, unshared(for_beta, for_bias)


@standardise_backward.register_fake
def _(
    g: Numbers, a: Numbers, for_scale: Numbers, for_bias: Numbers, for_mu: Numbers, for_first: Numbers,
    for_second: Numbers, z: Tensor, gamma: Numbers, beta: Numbers, *rest: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    empties = (empty(z, torch.float64) if x is None else torch.empty_like(x) for x in (gamma, beta))
    for_gamma, for_beta = empties
    return torch.empty_like(z), for_gamma, for_beta


def _save_standardise(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, gamma, beta, eps, second = inputs
    _, _, scale, _, mu, inverse, mean, variance, _, _ = output
    ctx.set_materialize_grads(False)
    ctx.eps, ctx.second = eps, second
    ctx.save_for_backward(z, gamma, beta, scale, mu, inverse, mean, variance)


def _differentiate_standardise(ctx: Any, *grads: Numbers) -> tuple[Numbers, ...]:
    g, a, for_scale, for_bias, for_mu, _, _, _, for_first, for_second = grads
    z, gamma, beta, *numbers = ctx.saved_tensors
    by_number = for_scale, for_bias, for_mu, for_first, for_second if ctx.second else None
    dz, for_gamma, for_beta = standardise_backward(g, a, *by_number, z, gamma, beta, *numbers, ctx.eps)
    return dz, None if gamma is None else for_gamma, None if beta is None else for_beta, None, None


standardise.register_autograd(_differentiate_standardise, setup_context=_save_standardise)


@torch.library.custom_op("excite::tail", mutates_args=())
def tail(
    z: Tensor,
    carrier: Tensor,
    carrier_a: Tensor,
    scale: Tensor,
    bias: Tensor,
    mu: Tensor,
    weights: Numbers,
    shortcut: Numbers,
    rectified: bool,
) -> Tensor:
    """Return `w (scale (z - mu) + bias) + shortcut`, rectified or not; w `[n c]`, the others `[c]`."""
    return fastest(z).scaled(z, Affine(scale, bias, mu, weights), shortcut, math.inf if rectified else None)


@tail.register_fake
def _(z: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(z)


@torch.library.custom_op("excite::tail_backward", mutates_args=())
def tail_backward(
    grad: Tensor, out: Numbers, z: Tensor, scale: Tensor, bias: Tensor, mu: Tensor, weights: Numbers
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return g behind the rectifier (empty without one), a `[n c]`, and the gradients of scale, bias, mu and w."""
    by, ceiling = Affine(scale, bias, mu, weights), None if out is None else math.inf
    g, a, numbers = fastest(z).grad_scaled(grad, out, z, by, ceiling)
    for_weights = empty(z, torch.float64) if numbers.weights is None else numbers.weights
    a = unshared(a.contiguous(), scale)
    return empty(z, z.dtype) if out is None else g, a, numbers.scale, numbers.bias, numbers.mu, for_weights


@tail_backward.register_fake
def _(
    grad: Tensor, out: Numbers, z: Tensor, scale: Tensor, bias: Tensor, mu: Tensor, weights: Numbers
) -> tuple[Tensor, ...]:
    a = z.new_empty(z.shape[:2], dtype=wide_type(z))
    numbers = (torch.empty_like(x) for x in (scale, bias, mu))
    for_weights = empty(z, torch.float64) if weights is None else weights.new_empty(weights.shape)
    return empty(z, z.dtype) if out is None else torch.empty_like(z), a, *numbers, for_weights


def _save_tail(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, _, _, scale, bias, mu, weights, shortcut, rectified = inputs
    ctx.shortcut = shortcut is not None
    ctx.save_for_backward(output if rectified else None, z, scale, bias, mu, weights)


def _differentiate_tail(ctx: Any, grad: Tensor) -> tuple[Numbers, ...]:
    out, z, scale, bias, mu, weights = ctx.saved_tensors
    g, a, for_scale, for_bias, for_mu, for_weights = tail_backward(grad, out, z, scale, bias, mu, weights)
    g = grad if out is None else g
    numbers = for_scale, for_bias, for_mu, None if weights is None else for_weights
    return None, g, a, *numbers, g if ctx.shortcut else None, None


tail.register_autograd(_differentiate_tail, setup_context=_save_tail)


def normalised(z: Tensor, norm: Any, state: Settings) -> tuple[tuple[Tensor, Tensor], Normalised]:
    """Return the carriers and the description of the map that a norm in training makes of `z`.

    Moves the running statistics, in operations that a compiler sees.
    """
    ends = standardise(z, norm.weight, norm.bias, norm.eps, state.second)
    carrier, carrier_a, scale, bias, mu, inverse, _, _, mean, variance = ends
    move_running(state, mu, inverse.pow(-2) - norm.eps, z.shape[0])
    return (carrier, carrier_a), Normalised(scale, bias, mu, mean, variance if state.second else None)
