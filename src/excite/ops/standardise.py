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
from excite.types import FeatureMap


class Moments(NamedTuple):
    """Mean, biased variance and projection of z over space, `[n c]` each, where they were asked for."""

    mean: torch.Tensor | None
    variance: torch.Tensor | None
    projection: torch.Tensor | None


class Job(NamedTuple):
    """What is asked for: eps of the norm, whether the batch's statistics normalise, which moments, positions.

    running: mean and variance `[c]`; with `batch` they move by `momentum` (0: not at all), else they normalise.
    """

    eps: float
    batch: bool
    running: tuple[torch.Tensor, torch.Tensor] | None
    momentum: float
    first: bool
    second: bool
    positions: int


class Gradients(NamedTuple):
    """Of gamma and beta, and the coefficients of `q (z - mu) + p + d basis`, the part of z; None is zero."""

    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    mu: torch.Tensor
    q: torch.Tensor | None
    p: torch.Tensor | None
    d: torch.Tensor | None


class Standard(NamedTuple):
    """scale, bias, mu, 1/deviation `[c]`; mean, variance and projection of y `[n c]` where asked for."""

    scale: torch.Tensor
    bias: torch.Tensor
    mu: torch.Tensor
    inverse: torch.Tensor
    first: torch.Tensor | None = None
    second: torch.Tensor | None = None
    projection: torch.Tensor | None = None


def small(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    """Return the coefficients x in the type in which z is worked on."""
    return x.to(wide_type(z))


def batch_statistics(mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and biased variance `[c]` over batch and space from moments `[n c]`, in float64."""
    mu = mean.mean(0, dtype=torch.float64)
    off = mean - mu.to(mean.dtype)
    return mu, torch.addcmul(variance, off, off).mean(0, dtype=torch.float64)


@torch.no_grad()
def move_running(job: Job, mu: torch.Tensor, variance: torch.Tensor, samples: int) -> None:
    """Move the running statistics as `torch.nn` does, towards the unbiased variance."""
    if job.running is None or not job.momentum:
        return
    count = samples * job.positions
    for running, new in zip(job.running, (mu, variance * (count / (count - 1))), strict=True):
        running.lerp_(new.to(running.dtype), job.momentum)


def standard(
    moments: Moments,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    basis: torch.Tensor | None,
    job: Job,
) -> Standard:
    """Return what the second pass and the squeeze need; moves the running statistics."""
    mean, variance, projection = moments
    if job.batch:
        assert mean is not None
        assert variance is not None
        mu, var = batch_statistics(mean, variance)
        move_running(job, mu, var, mean.shape[0])
    else:
        # Copies: the buffers may move on before the backward pass comes here.
        assert job.running is not None
        mu, var = (x.detach().to(torch.float64, copy=True) for x in job.running)
    inverse = (var + job.eps).rsqrt()
    scale = inverse if gamma is None else inverse * gamma
    bias = torch.zeros_like(mu) if beta is None else beta.double()
    made = Standard(scale, bias, mu, inverse)
    if not job.first:
        return made
    assert mean is not None
    if projection is not None and basis is not None:
        total = _total(basis)
        projected = torch.addcmul(bias * total, projection - mu * total, scale)
        return made._replace(projection=projected.to(mean.dtype))
    wide = scale.to(mean.dtype)
    first = torch.addcmul(bias.to(mean.dtype), mean - mu.to(mean.dtype), wide)
    if not job.second:
        return made._replace(first=first)
    assert variance is not None
    return made._replace(first=first, second=variance * (wide * wide))


def differentiate(
    moments: Moments,
    made: Standard,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    basis: torch.Tensor | None,
    grads: list[torch.Tensor | None],
    job: Job,
) -> Gradients:
    """Return the gradients for those of the outputs of `standard` (scale, bias, mu, and the three descriptions)."""
    mean, variance, projection = moments
    assert mean is not None
    sums: list[Any] = [0.0 if g is None else g for g in grads[:3]]
    by_first, by_second, by_projection = grads[3:]
    scale, mu = made.scale, made.mu
    small_scale, small_mu = scale.to(mean.dtype), mu.to(mean.dtype)
    off, p, q, d = mean - small_mu, None, None, None
    if by_second is not None:
        assert variance is not None
        spread = by_second * small_scale
        sums[0] = sums[0] + 2 * (spread * variance).sum(0, dtype=torch.float64)
        q = spread * small_scale * (2 / job.positions)
    if by_first is not None:
        sums = _added(sums, by_first.sum(0, dtype=torch.float64), (by_first * off).sum(0, dtype=torch.float64), scale)
        p = by_first * (small_scale / job.positions)
    if q is not None:
        p = -q * off if p is None else torch.addcmul(p, q, off, value=-1)
    if by_projection is not None and projection is not None and basis is not None:
        total, wide = _total(basis), by_projection.double()
        sums = _added(sums, wide.sum(0) * total, (wide * (projection - mu * total)).sum(0), scale)
        d = by_projection * small_scale
    if job.batch:
        q, p = _through_the_batch(sums, made.inverse, scale, mean, q, p, job.positions)
    return Gradients(
        _cast(sums[0] * made.inverse if gamma is not None else None, gamma), _cast(sums[1], beta), small_mu, q, p, d
    )


def _added(sums: list[Any], total: torch.Tensor, product: torch.Tensor, scale: torch.Tensor) -> list[Any]:
    # What a description `scale (m - mu) + bias` adds to the gradients of scale, bias and mu.
    return [sums[0] + product, sums[1] + total, sums[2] - total * scale]


def _through_the_batch(
    sums: list[Any],
    inverse: torch.Tensor,
    scale: torch.Tensor,
    mean: torch.Tensor,
    q: torch.Tensor | None,
    p: torch.Tensor | None,
    positions: int,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    # mu and the variance are functions of z too: d scale / d var = -scale inverse^2 / 2.
    elements = mean.shape[0] * positions
    if isinstance(sums[0], torch.Tensor):
        of_scale = (inverse * inverse * scale * sums[0] / -elements).to(mean.dtype)
        q = of_scale.expand_as(mean) if q is None else q + of_scale
    if isinstance(sums[2], torch.Tensor):
        of_mu = (sums[2] / elements).to(mean.dtype)
        p = of_mu.expand_as(mean) if p is None else p + of_mu
    return q, p


def _cast(grad: Any, parameter: torch.Tensor | None) -> torch.Tensor | None:
    return grad.to(parameter.dtype) if parameter is not None and isinstance(grad, torch.Tensor) else None


def _total(basis: torch.Tensor) -> torch.Tensor:
    return basis.sum(tuple(range(1, basis.dim())), dtype=torch.float64)
