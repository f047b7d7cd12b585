"""The fused residual tail: batch norm, squeeze, gate, scale, addition and rectifier in two passes over the map.

One pass takes mean and variance of z per sample and channel. Batch norm is then affine, `y = A z + B` with
`A = gamma / sigma` and `B = beta - gamma mu / sigma` per channel, and what a squeeze needs of y follows from the same
moments. The gate's weights w turn it into `a = A w`, `b = B w` per sample and channel, and the second pass writes
`relu(a z + b + shortcut)`. Everything between the passes is `[n c]`, in float64: it costs nothing and cancels nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from excite.ops.autograd import AffineTail, Link, TakeMoments
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
    with torch.autocast(z.device.type, enabled=False) if torch.is_autocast_enabled(z.device.type) else _Nothing():
        basis = projection_basis(squeeze, z)
        batch = norm.training or norm.running_mean is None
        second = getattr(squeeze, "needs_second_moment", False)
        link, mean, variance, projection = None, None, None, None
        if batch or squeeze is not None:
            link = Link()
            z, mean, variance, projection = TakeMoments.apply(z, basis, (batch or second, second), link, kernels)
        scale, offset = norm_affine(norm, mean if batch else None, variance, z[0, 0].numel())
        descriptor = None
        if squeeze is not None:
            descriptor = describe(squeeze, z, scale, offset, mean, variance, projection, basis)
    if weigh is not None:
        weights = weigh(descriptor).double()  # type: ignore[arg-type]
        a, b = scale * weights, offset * weights
    else:
        a, b = scale.expand(z.shape[:2]), offset.expand(z.shape[:2])
    centre = None if mean is None else mean.detach()
    rectify = is_rectifier(act)
    out = AffineTail.apply(z, a, b, shortcut, centre, rectify, link, kernels)
    return (out if rectify or act is None else act(out)), descriptor


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def norm_affine(
    norm: Any, mean: torch.Tensor | None, variance: torch.Tensor | None, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A, B `[c]` float64 of `norm(z) = A z + B`; update the running statistics where the norm would.

    mean, variance: moments `[n c]` over `count` positions, or None to use the running statistics.
    """
    if mean is not None and variance is not None:
        mu = mean.mean(0)
        var = (variance + (mean - mu).square()).mean(0)
        if norm.training and norm.running_mean is not None:
            update_running(norm, mu.detach(), var.detach(), mean.shape[0] * count)
    else:
        mu, var = norm.running_mean.double(), norm.running_var.double()
    scale = (var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    offset = -mu * scale
    return scale, offset if norm.bias is None else offset + norm.bias.double()


@torch.no_grad()
def update_running(norm: nn.BatchNorm2d, mu: torch.Tensor, var: torch.Tensor, count: int) -> None:
    """Move the running statistics as `torch.nn` does: unbiased variance; momentum None is the plain average."""
    factor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    for running, new in ((norm.running_mean, mu), (norm.running_var, var * (count / (count - 1)))):
        if running is not None:
            running.copy_(running.double().lerp_(new, factor))


def projection_basis(squeeze: Any, z: FeatureMap) -> torch.Tensor | None:
    """Return the constants `[c *space]` of a squeeze that is a weighted sum, laid out as `z`; None for the others."""
    if not hasattr(squeeze, "from_projection"):
        return None
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    basis: torch.Tensor = squeeze.projection(tuple(z.shape[1:]), wide)
    return basis if z.is_contiguous() else basis.unsqueeze(0).to(memory_format=torch.channels_last)[0]


def describe(
    squeeze: Any,
    z: FeatureMap,
    scale: torch.Tensor,
    offset: torch.Tensor,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    projection: torch.Tensor | None,
    basis: torch.Tensor | None,
) -> Descriptor:
    """Return the descriptor of `scale * z + offset` from the moments of z, in the type the squeeze itself gives."""
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    if projection is not None and basis is not None:
        total = basis.sum(tuple(range(1, basis.dim())), dtype=torch.float64)
        return squeeze.from_projection(scale * projection + offset * total).to(wide)
    assert mean is not None
    count = z[0, 0].numel()
    own = scale * mean + offset
    if not squeeze.needs_second_moment:
        return squeeze.from_moments(own * count, None, count).to(z.dtype)
    assert variance is not None
    squares = scale.square() * variance + own.square()
    return squeeze.from_moments(own * count, squares * count, count).to(wide)
