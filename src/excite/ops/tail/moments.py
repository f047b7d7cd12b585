"""What lies between the two passes of the fused tail: from moments of z to those of the normalised map, and back.

With mean m and variance v of every sample and channel over P positions, and mu, var those of the batch (or the running
ones), batch norm is `y = scale (z - mu) + bias`, `scale = gamma / sqrt(var + eps)`, `bias = beta`, and

    mean of y = scale (m - mu) + bias,   variance of y = scale^2 v,
    sum of basis * y = scale (projection - mu total) + bias total,   total = sum of basis.

Numbers per channel are float64, they cost nothing; numbers per sample and channel float32 (float64 where z is): all of
them are taken around mu, so nothing cancels.
"""

from typing import Any, NamedTuple

import torch

from excite.ops.precision import wide_type
from excite.types import Descriptor, FeatureMap

# Any: the plan has looked at what norm and squeeze are; the checker sees modules.

Numbers = torch.Tensor | None


class Settings(NamedTuple):
    """How the norm works: eps, whether the batch's statistics normalise, and what of z and y is wanted.

    running: mean and variance `[c]`; with `batch` they move by `momentum` (0: not at all), else they normalise.
    first, second: whether the squeeze takes means (or projections) of y, and its variances. positions: of the map.
    """

    eps: float
    batch: bool
    running: tuple[torch.Tensor, torch.Tensor] | None
    momentum: float | torch.Tensor
    first: bool
    second: bool
    positions: int


class Moments(NamedTuple):
    """Mean, biased variance and projection of z over space, `[n c]` each, where they were asked for."""

    mean: Numbers
    variance: Numbers
    projection: Numbers


class Normalised(NamedTuple):
    """The norm `scale (z - mu) + bias` `[c]`, and mean, variance and projection of y `[n c]` where asked for."""

    scale: torch.Tensor
    bias: torch.Tensor
    mu: torch.Tensor
    mean: Numbers = None
    variance: Numbers = None
    projection: Numbers = None


class Statistics(NamedTuple):
    """Moments of z, 1 / deviation `[c]`, and what follows for the normalised map."""

    moments: Moments
    inverse: torch.Tensor
    normalised: Normalised


class NormalisedGrads(NamedTuple):
    """The gradients of the fields of `Normalised`; None is zero."""

    scale: Numbers = None
    bias: Numbers = None
    mu: Numbers = None
    mean: Numbers = None
    variance: Numbers = None
    projection: Numbers = None


class Saved(NamedTuple):
    """What the backward pass of the norm needs: z and its moments, constants, parameters and statistics `[c]`."""

    z: FeatureMap
    basis: Numbers
    gamma: Numbers
    beta: Numbers
    mean: Numbers
    variance: Numbers
    projection: Numbers
    scale: torch.Tensor
    mu: torch.Tensor
    inverse: torch.Tensor


class Differential(NamedTuple):
    """Gradients of gamma and beta, and the coefficients of `q (z - mu) + p + d basis`, the part of z; None is zero."""

    gamma: Numbers
    beta: Numbers
    mu: torch.Tensor
    q: Numbers
    p: Numbers
    d: Numbers


class _Sums(NamedTuple):
    # Gradients of scale, bias and mu `[c]`; 0.0 where nothing came.
    scale: torch.Tensor | float
    bias: torch.Tensor | float
    mu: torch.Tensor | float


def small(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    """Return the coefficients x in the type in which z is worked on."""
    return x.to(wide_type(z))


def settings_of(norm: Any, squeeze: Any, z: FeatureMap) -> Settings:
    """Return what is to be computed between the passes; counts the batch where the norm does."""
    running = None if norm.running_mean is None else (norm.running_mean, norm.running_var)
    batch = norm.training or running is None
    momentum: float | torch.Tensor = 0.0
    if norm.training and running is not None:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        # A momentum of None is the plain average.
        if norm.momentum is not None:
            momentum = norm.momentum
        elif norm.num_batches_tracked is not None:
            count = norm.num_batches_tracked
            # As a number it would make a device wait for it, and end a compiler's graph.
            plain = count.device.type == "cpu" and not torch.compiler.is_compiling()
            momentum = 1.0 / float(count) if plain else count.double().reciprocal()
    positions = z.numel() // (z.shape[0] * z.shape[1])
    second = squeeze is not None and getattr(squeeze, "needs_second_moment", False)
    return Settings(norm.eps, batch, running, momentum, squeeze is not None, second, positions)


def projection_basis(squeeze: Any, z: FeatureMap) -> torch.Tensor | None:
    """Return the constants `[c *space]` of a squeeze that is a weighted sum, laid out as `z`; None for the others."""
    if not hasattr(type(squeeze), "from_projection"):
        return None
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    basis: torch.Tensor = squeeze.projection(tuple(z.shape[1:]), wide)
    return basis if z.is_contiguous() else basis.unsqueeze(0).to(memory_format=torch.channels_last)[0]


def describe(squeeze: Any, y: Normalised, positions: int, z: FeatureMap) -> Descriptor:
    """Return the descriptor of the normalised map in the type the squeeze itself gives."""
    descriptor: Descriptor
    if y.projection is not None:
        descriptor = squeeze.from_projection(y.projection)
        return descriptor
    descriptor = squeeze.from_statistics(y.mean, y.variance, positions)
    return descriptor if y.variance is not None else descriptor.to(z.dtype)


def batch_statistics(mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and biased variance `[c]` over batch and space from moments `[n c]`, in float64."""
    mu = mean.mean(0, dtype=torch.float64)
    off = mean - mu.to(mean.dtype)
    return mu, torch.addcmul(variance, off, off).mean(0, dtype=torch.float64)


@torch.no_grad()
def move_running(settings: Settings, mu: torch.Tensor, variance: torch.Tensor, samples: int) -> None:
    """Move the running statistics as `torch.nn` does, towards the unbiased variance."""
    momentum = settings.momentum
    if settings.running is None or (not isinstance(momentum, torch.Tensor) and not momentum):
        return
    count = samples * settings.positions
    for running, new in zip(settings.running, (mu, variance * (count / (count - 1))), strict=True):
        weight = momentum.to(running.dtype) if isinstance(momentum, torch.Tensor) else momentum
        running.lerp_(new.to(running.dtype), weight)


def normalise(moments: Moments, gamma: Numbers, beta: Numbers, basis: Numbers, settings: Settings) -> Statistics:
    """Return what the second pass and the squeeze need; moves the running statistics."""
    mean, variance, projection = moments
    if settings.batch:
        assert mean is not None
        assert variance is not None
        mu, var = batch_statistics(mean, variance)
        move_running(settings, mu, var, mean.shape[0])
    else:
        # Copies: the buffers may move on before the backward pass comes here.
        assert settings.running is not None
        mu, var = (x.detach().to(torch.float64, copy=True) for x in settings.running)
    inverse = (var + settings.eps).rsqrt()
    scale = inverse if gamma is None else inverse * gamma
    bias = torch.zeros_like(mu) if beta is None else beta.double()
    y = Normalised(scale, bias, mu)
    if not settings.first:
        return Statistics(moments, inverse, y)
    assert mean is not None
    if projection is not None and basis is not None:
        total = _total(basis)
        projected = torch.addcmul(bias * total, projection - mu * total, scale)
        return Statistics(moments, inverse, y._replace(projection=projected.to(mean.dtype)))
    wide = scale.to(mean.dtype)
    y = y._replace(mean=torch.addcmul(bias.to(mean.dtype), mean - mu.to(mean.dtype), wide))
    if settings.second:
        assert variance is not None
        y = y._replace(variance=variance * (wide * wide))
    return Statistics(moments, inverse, y)


def differentiate(saved: Saved, grads: NormalisedGrads, settings: Settings) -> Differential:
    """Return gamma's and beta's gradients and z's coefficients from the gradients of what `normalise` gave."""
    mean, scale, mu, basis = saved.mean, saved.scale, saved.mu, saved.basis
    assert mean is not None
    sums = _Sums(*(0.0 if g is None else g for g in (grads.scale, grads.bias, grads.mu)))
    small_scale, small_mu = scale.to(mean.dtype), mu.to(mean.dtype)
    off, p, q, d = mean - small_mu, None, None, None
    if grads.variance is not None:
        assert saved.variance is not None
        spread = grads.variance * small_scale
        sums = sums._replace(scale=sums.scale + 2 * (spread * saved.variance).sum(0, dtype=torch.float64))
        q = spread * small_scale * (2 / settings.positions)
    if grads.mean is not None:
        total, product = (x.sum(0, dtype=torch.float64) for x in (grads.mean, grads.mean * off))
        sums = _added(sums, total, product, scale)
        p = grads.mean * (small_scale / settings.positions)
    if q is not None:
        p = -q * off if p is None else torch.addcmul(p, q, off, value=-1)
    if grads.projection is not None and saved.projection is not None and basis is not None:
        total, wide = _total(basis), grads.projection.double()
        sums = _added(sums, wide.sum(0) * total, (wide * (saved.projection - mu * total)).sum(0), scale)
        d = grads.projection * small_scale
    if settings.batch:
        # mu and the variance are functions of z too: d scale / d var = -scale inverse^2 / 2.
        elements = mean.shape[0] * settings.positions
        if isinstance(sums.scale, torch.Tensor):
            of_scale = (saved.inverse * saved.inverse * scale * sums.scale / -elements).to(mean.dtype)
            q = of_scale.expand_as(mean) if q is None else q + of_scale
        if isinstance(sums.mu, torch.Tensor):
            of_mu = (sums.mu / elements).to(mean.dtype)
            p = of_mu.expand_as(mean) if p is None else p + of_mu
    gamma = None if saved.gamma is None else _cast(sums.scale * saved.inverse, saved.gamma)
    return Differential(gamma, _cast(sums.bias, saved.beta), small_mu, q, p, d)


def _added(sums: _Sums, total: torch.Tensor, product: torch.Tensor, scale: torch.Tensor) -> _Sums:
    # What a description `scale (m - mu) + bias` adds to the gradients of scale, bias and mu.
    return _Sums(sums.scale + product, sums.bias + total, sums.mu - total * scale)


def _cast(grad: torch.Tensor | float, parameter: Numbers) -> Numbers:
    return grad.to(parameter.dtype) if parameter is not None and isinstance(grad, torch.Tensor) else None


def _total(basis: torch.Tensor) -> torch.Tensor:
    return basis.sum(tuple(range(1, basis.dim())), dtype=torch.float64)
