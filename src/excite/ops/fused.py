"""The fused residual tail: batch norm, squeeze, gate, scale, addition and rectifier in two passes over the map.

One pass takes mean and variance of z per sample and channel. Batch norm is then affine, `y = A z + B` with
`A = gamma / sigma` and `B = beta - gamma mu / sigma` per channel, and what a squeeze needs of y follows from the same
moments. The gate's weights w turn it into `a = A w`, `b = B w` per sample and channel, and the second pass writes
`relu(a z + b + shortcut)`. Everything between the passes is `[n c]` and small.
"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import Any

import torch

from excite.errors import UsageError
from excite.ops.autograd import AffineTail, Link, Standardise
from excite.ops.eligible import ceiling_of
from excite.ops.kernels import Affine, Kernels
from excite.ops.standardise import Job, Moments, standard
from excite.types import Descriptor, FeatureMap, Weights

Weigh = Callable[[Descriptor], Weights]
Act = Callable[[FeatureMap], FeatureMap] | None


def fused_tail(
    z: FeatureMap,
    norm: Any,
    squeeze: Any,
    weigh: Weigh | None,
    shortcut: FeatureMap | None,
    act: Act,
    kernels: Kernels,
) -> tuple[FeatureMap, Descriptor | None]:
    """Return the output and the descriptor of the normalised map (None without a squeeze).

    norm: a batch norm; squeeze: has `from_statistics`, `from_moments` or `from_projection`, or is None; weigh: the
    gate, or None for no scaling; act: anything, though only plain rectifiers are part of the second pass; kernels:
    what runs the passes.
    """
    with torch.autocast(z.device.type, enabled=False) if torch.is_autocast_enabled(z.device.type) else nullcontext():
        job = job_of(norm, squeeze, z)
        given = z, projection_basis(squeeze, z), norm.weight, norm.bias, job
        link, carrier, descriptor = None, None, None
        if not torch.is_grad_enabled():
            scale, bias, mu, _, first, second, projection = kernels.standardise(*given)[1]
        elif job.batch or job.first:
            link = Link()
            made = Standardise.apply(*given, link, kernels)
            z, carrier, scale, bias, mu, first, second, projection = made
        else:
            scale, bias, mu = frozen(norm, job)
        if squeeze is not None:
            descriptor = describe(squeeze, (first, second, projection), job.positions, z)
    weights = None if weigh is None else fitting(weigh(descriptor), z)  # type: ignore[arg-type]
    ceiling = ceiling_of(act)
    ceiling = ceiling if ceiling in kernels.ceilings else None
    if torch.is_grad_enabled():
        out = AffineTail.apply(z, carrier, scale, bias, mu, weights, shortcut, ceiling, link, kernels)
    else:
        out = kernels.scaled(z, Affine(scale, bias, mu, weights), shortcut, ceiling)
    return (out if ceiling is not None or act is None else act(out)), descriptor


def job_of(norm: Any, squeeze: Any, z: FeatureMap) -> Job:
    """Return what is to be computed between the passes; counts the batch where the norm does."""
    running = None if norm.running_mean is None else (norm.running_mean, norm.running_var)
    batch, momentum = norm.training or running is None, 0.0
    if norm.training and running is not None:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        # A momentum of None is the plain average.
        if norm.momentum is not None:
            momentum = norm.momentum
        elif norm.num_batches_tracked is not None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    positions = z.numel() // (z.shape[0] * z.shape[1])
    second = squeeze is not None and getattr(squeeze, "needs_second_moment", False)
    return Job(norm.eps, batch, running, momentum, squeeze is not None, second, positions)


def frozen(norm: Any, job: Job) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scale, bias and mu `[c]` of a norm with running statistics, where no moment of z is needed."""
    return standard(Moments(None, None, None), norm.weight, norm.bias, None, job)[:3]


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


def describe(squeeze: Any, moments: tuple[Any, Any, Any], count: int, z: FeatureMap) -> Descriptor:
    """Return the descriptor in the type the squeeze itself gives."""
    mean, variance, projection = moments
    made: Descriptor
    if projection is not None:
        made = squeeze.from_projection(projection)
    elif hasattr(squeeze, "from_statistics"):
        made = squeeze.from_statistics(mean, variance, count)
    elif variance is None:
        made = squeeze.from_moments(mean * count, None, count)
    else:
        made = squeeze.from_moments(mean * count, torch.addcmul(variance, mean, mean) * count, count)
    return made if projection is not None or variance is not None else made.to(z.dtype)


def projection_basis(squeeze: Any, z: FeatureMap) -> torch.Tensor | None:
    """Return the constants `[c *space]` of a squeeze that is a weighted sum, laid out as `z`; None for the others."""
    if not hasattr(squeeze, "from_projection"):
        return None
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    basis: torch.Tensor = squeeze.projection(tuple(z.shape[1:]), wide)
    return basis if z.is_contiguous() else basis.unsqueeze(0).to(memory_format=torch.channels_last)[0]
