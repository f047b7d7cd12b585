"""The fused residual tail: batch norm, squeeze, gate, scale, addition and rectifier in two passes over the map.

One pass takes mean and variance of z per sample and channel. Batch norm is then affine, `y = A z + B` with
`A = gamma / sigma` and `B = beta - gamma mu / sigma` per channel, and what a squeeze needs of y follows from the same
moments. The gate's weights w turn it into `a = A w`, `b = B w` per sample and channel, and the second pass writes
`relu(a z + b + shortcut)`. Everything between the passes is `[n c]` and small.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from excite.ops.autograd import AffineTail, Link, Standardise
from excite.ops.eligible import is_rectifier
from excite.ops.standardise import Job
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
    kernels: Any,
) -> tuple[FeatureMap, Descriptor | None]:
    """Return the output and the descriptor of the normalised map (None without a squeeze).

    norm: a batch norm; squeeze: has `from_moments` or `from_projection`, or is None; weigh: the gate, or None for no
    scaling; act: anything, though only a plain ReLU is part of the second pass; kernels: a module with the passes.
    """
    with torch.autocast(z.device.type, enabled=False) if torch.is_autocast_enabled(z.device.type) else nullcontext():
        job = job_of(norm, squeeze, z)
        link, carrier, descriptor = None, None, None
        if job.batch or squeeze is not None:
            link, basis = Link(), projection_basis(squeeze, z)
            made = Standardise.apply(z, basis, norm.weight, norm.bias, job, link, kernels)
            z, carrier, scale, bias, mu, *moments = made
            if norm.training and norm.running_mean is not None:
                update_running(norm, link, z.shape[0] * job.positions)
            if squeeze is not None:
                descriptor = describe(squeeze, moments, job.positions, z)
        else:
            scale, bias, mu = frozen(norm, job)
    weights = None if weigh is None else weigh(descriptor)  # type: ignore[arg-type]
    rectify = is_rectifier(act)
    out = AffineTail.apply(z, carrier, scale, bias, mu, weights, shortcut, rectify, link, kernels)
    return (out if rectify or act is None else act(out)), descriptor


def job_of(norm: Any, squeeze: Any, z: FeatureMap) -> Job:
    """Return what is to be computed between the passes."""
    running = None
    if not norm.training and norm.running_mean is not None:
        # Copies: the buffers may move on before the backward pass comes here.
        mean, variance = (x.detach().to(torch.float64, copy=True) for x in (norm.running_mean, norm.running_var))
        running = mean, variance
    first, second = squeeze is not None, getattr(squeeze, "needs_second_moment", False)
    return Job(norm.eps, running, first, second, z[0, 0].numel())


def frozen(norm: Any, job: Job) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scale, bias and mu `[c]` of a norm with running statistics, where no moment of z is needed."""
    assert job.running is not None
    mu, var = job.running
    scale = (var + job.eps).rsqrt()
    return (
        scale if norm.weight is None else scale * norm.weight,
        (torch.zeros_like(mu) if norm.bias is None else norm.bias.double()),
        mu,
    )


def describe(squeeze: Any, moments: list[Any], count: int, z: FeatureMap) -> Descriptor:
    """Return the descriptor in the type the squeeze itself gives."""
    first, second, projection = moments
    made: Descriptor
    if projection is not None:
        made = squeeze.from_projection(projection)
    elif second is not None:
        made = squeeze.from_moments(first * count, second * count, count)
    else:
        made = squeeze.from_moments(first * count, None, count).to(z.dtype)
    return made


@torch.no_grad()
def update_running(norm: Any, link: Link, count: int) -> None:
    """Move the running statistics as `torch.nn` does: unbiased variance; momentum None is the plain average."""
    assert link.statistics is not None
    mean, variance = link.statistics
    factor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    for running, new in ((norm.running_mean, mean), (norm.running_var, variance * (count / (count - 1)))):
        running.lerp_(new.to(running.dtype), factor)


def projection_basis(squeeze: Any, z: FeatureMap) -> torch.Tensor | None:
    """Return the constants `[c *space]` of a squeeze that is a weighted sum, laid out as `z`; None for the others."""
    if not hasattr(squeeze, "from_projection"):
        return None
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    basis: torch.Tensor = squeeze.projection(tuple(z.shape[1:]), wide)
    return basis if z.is_contiguous() else basis.unsqueeze(0).to(memory_format=torch.channels_last)[0]
