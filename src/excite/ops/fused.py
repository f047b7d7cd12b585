"""The fused residual tail: batch norm, squeeze, gate, scale, addition and rectifier in two passes over the map.

One pass takes mean and variance of z per sample and channel. Batch norm is then affine, `y = A z + B` with
`A = gamma / sigma` and `B = beta - gamma mu / sigma` per channel, and what a squeeze needs of y follows from the same
moments. The gate's weights w turn it into `a = A w`, `b = B w` per sample and channel, and the second pass writes
`relu(a z + b + shortcut)`. Everything between the passes is `[n c]`, in float64: it costs nothing and cancels nothing.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from excite.ops.autograd import AffineTail, Link, Recomputed, TakeMoments
from excite.ops.eligible import is_rectifier
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
        basis = projection_basis(squeeze, z)
        batch = norm.training or norm.running_mean is None
        second = getattr(squeeze, "needs_second_moment", False)
        link, carrier, mean, variance, projection = None, None, None, None, None
        if batch or squeeze is not None:
            link = Link()
            wants = (batch or second, second)
            z, carrier, mean, variance, projection = TakeMoments.apply(z, basis, wants, link, kernels)
        if norm.training and norm.running_mean is not None:
            update_running(norm, mean, variance, z[0, 0].numel())
        between = Between(norm, squeeze, batch, z, basis)
        scale, offset, descriptor = Recomputed.apply(between, mean, variance, projection, norm.weight, norm.bias)
    weights = None if weigh is None else weigh(descriptor)
    rectify = is_rectifier(act)
    centre = None if mean is None else mean.detach()
    out = AffineTail.apply(z, carrier, scale, offset, weights, shortcut, centre, rectify, link, kernels)
    return (out if rectify or act is None else act(out)), descriptor


class Between:
    """mean, variance, projection `[n c]`, gamma, beta `[c]` -> scale, offset `[c]`, descriptor `[n c k]`."""

    def __init__(self, norm: Any, squeeze: Any, batch: bool, z: FeatureMap, basis: torch.Tensor | None) -> None:
        self.squeeze, self.eps, self.count, self.dtype = squeeze, norm.eps, z[0, 0].numel(), z.dtype
        # Copies: the buffers may move on before the backward pass comes here again.
        self.running = None
        if not batch:
            self.running = tuple(x.detach().to(torch.float64, copy=True) for x in (norm.running_mean, norm.running_var))
        self.total = None if basis is None else basis.sum(tuple(range(1, basis.dim())), dtype=torch.float64)

    def __call__(
        self,
        mean: torch.Tensor | None,
        variance: torch.Tensor | None,
        projection: torch.Tensor | None,
        gamma: torch.Tensor | None,
        beta: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Return what the second pass needs; the descriptor is None without a squeeze."""
        mean, variance, projection = (None if x is None else x.double() for x in (mean, variance, projection))
        if self.running is not None:
            mu, var = self.running
        else:
            assert mean is not None
            assert variance is not None
            mu, var = batch_statistics(mean, variance)
        scale = (var + self.eps).rsqrt()
        if gamma is not None:
            scale = scale * gamma.double()
        offset = -mu * scale
        if beta is not None:
            offset = offset + beta.double()
        if self.squeeze is None:
            return scale, offset, None
        return scale, offset, self.describe(scale, offset, mean, variance, projection)

    def describe(
        self,
        scale: torch.Tensor,
        offset: torch.Tensor,
        mean: torch.Tensor | None,
        variance: torch.Tensor | None,
        projection: torch.Tensor | None,
    ) -> Descriptor:
        """Return the descriptor of `scale z + offset` from moments of z, in the type the squeeze itself gives."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        if projection is not None and self.total is not None:
            return self.squeeze.from_projection(scale * projection + offset * self.total).to(wide)
        assert mean is not None
        own, count = scale * mean + offset, self.count
        if not self.squeeze.needs_second_moment:
            return self.squeeze.from_moments(own * count, None, count).to(self.dtype)
        assert variance is not None
        squares = scale.square() * variance + own.square()
        return self.squeeze.from_moments(own * count, squares * count, count).to(wide)


def batch_statistics(mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and biased variance `[c]` over batch and space from moments `[n c]`."""
    mu = mean.mean(0)
    return mu, (variance + (mean - mu).square()).mean(0)


@torch.no_grad()
def update_running(norm: Any, mean: Any, variance: Any, positions: int) -> None:
    """Move the running statistics as `torch.nn` does: unbiased variance; momentum None is the plain average."""
    factor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    mu, var = batch_statistics(mean.double(), variance.double())
    count = mean.shape[0] * positions
    for running, new in ((norm.running_mean, mu), (norm.running_var, var * (count / (count - 1)))):
        running.copy_(running.double().lerp_(new, factor))


def projection_basis(squeeze: Any, z: FeatureMap) -> torch.Tensor | None:
    """Return the constants `[c *space]` of a squeeze that is a weighted sum, laid out as `z`; None for the others."""
    if not hasattr(squeeze, "from_projection"):
        return None
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    basis: torch.Tensor = squeeze.projection(tuple(z.shape[1:]), wide)
    return basis if z.is_contiguous() else basis.unsqueeze(0).to(memory_format=torch.channels_last)[0]
