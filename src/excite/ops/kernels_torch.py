"""The passes of the fused tail in plain PyTorch, blocked so that a slice of the map stays in the cache.

Each function walks over the samples a few at a time: what would be several passes over memory is one, because the
second operation on a slice finds it in the cache. Half precision is widened slice by slice, sums are float32 or wider.
"""

from collections.abc import Iterator

import torch

from excite.ops.precision import widen
from excite.types import FeatureMap

aten = torch.ops.aten

# A slice of z, of the shortcut and of the output fit together into the second-level caches of current processors.
SLICE_BYTES = 1 << 20
# One fused statistics call per sample pays when a sample outweighs the cost of the call.
STATISTICS_BYTES = 1 << 17
# Sum z^2 - (sum z)^2 / n loses log10(mean^2 / var) digits; beyond this ratio the variance is taken around the mean.
CANCELLATION = 100.0


def slices(z: FeatureMap) -> Iterator[slice]:
    """Yield the slices of samples to work on."""
    sample = z[:1].numel() * z.element_size()
    step = max(1, SLICE_BYTES * torch.get_num_threads() // max(sample, 1))
    for start in range(0, z.shape[0], step):
        yield slice(start, min(start + step, z.shape[0]))


def spread(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    """Return the coefficients `[n c]` as `[n c 1 1]` in the working precision of `z`."""
    wide = torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else z.dtype
    return x.to(wide).reshape(x.shape + (1,) * (z.dim() - 2))


def spread_shape(z: FeatureMap) -> tuple[int, ...]:
    """Return (n, c, 1, 1) for a map `[n c h w]`."""
    return z.shape[:2] + (1,) * (z.dim() - 2)


def _space(z: FeatureMap) -> tuple[int, ...]:
    return tuple(range(2, z.dim()))


def is_channels_last(z: FeatureMap) -> bool:
    """Tell whether the channels of `z` are the fastest axis (and not both are, as in 1x1 maps)."""
    return z.dim() > 2 and z.stride(1) == 1 and not z.is_contiguous()


def moments(
    z: FeatureMap, second: bool, per_sample: bool, basis: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return mean, biased variance and projection over space, `[n c]` each (float32, or as wide as z), in one pass.

    second: whether the variance is wanted; per_sample: whether it must be exact for every sample, not for the batch
    only; basis: `[c *space]`, the projection is `sum(basis * z)` over space.
    """
    if second and basis is None and is_channels_last(z) and z.dtype in (torch.float32, torch.float64):
        sample = z[:1].numel() * z.element_size()
        if sample >= STATISTICS_BYTES:
            pairs = [aten.batch_norm_update_stats(z[i : i + 1], None, None, 0.0) for i in range(z.shape[0])]
            return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]), None
    count, space, wide = z[0, 0].numel(), _space(z), widen(z[:1]).dtype
    sums, squares, projections = [], [], []
    for s in slices(z):
        part = widen(z[s])
        sums.append(part.sum(space))
        if second:
            centred = part - sums[-1].reshape(spread_shape(part)) / count if per_sample else part
            squares.append((centred * centred).sum(space))
        if basis is not None:
            projections.append((part * basis).sum(space))
    mean = torch.cat(sums).double() / count
    projection = torch.cat(projections) if basis is not None else None
    if not second:
        return mean.to(wide), None, projection
    variance = torch.cat(squares).double() / count
    if not per_sample:
        variance = (variance - mean.square()).clamp_(min=0)
        total = variance.mean(0) + mean.var(0, unbiased=False)
        if bool((mean.square().mean(0) > CANCELLATION * total).any()):
            variance = _centred(z, mean)
    return mean.to(wide), variance.to(wide), projection


def _centred(z: FeatureMap, mean: torch.Tensor) -> torch.Tensor:
    centre, space = spread(mean, z), _space(z)
    return torch.cat([(widen(z[s]) - centre[s]).square_().mean(space) for s in slices(z)]).double()


def affine(z: FeatureMap, a: torch.Tensor, b: torch.Tensor, shortcut: FeatureMap | None, relu: bool) -> FeatureMap:
    """Return `a * z + b + shortcut`, rectified if `relu`; a, b `[n c]`."""
    out = torch.empty_like(z)
    a, b = spread(a, z), spread(b, z)
    for s in slices(z):
        narrow = out.dtype != a.dtype
        work = torch.empty_like(z[s], dtype=a.dtype) if narrow else out[s]
        if shortcut is None:
            torch.mul(widen(z[s]), a[s], out=work)
        else:
            torch.addcmul(widen(shortcut[s]), widen(z[s]), a[s], out=work)
        if relu:
            _add_relu(work, b[s])
        else:
            work.add_(b[s])
        if narrow:
            out[s].copy_(work)
    return out


def _add_relu(x: torch.Tensor, b: torch.Tensor) -> None:
    # One pass instead of two; private to torch, hence the way around it.
    if x.device.type == "cpu" and hasattr(aten, "_add_relu_"):
        aten._add_relu_(x, b)
    else:
        x.add_(b).relu_()


def grad_sums(
    grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, mean: torch.Tensor | None
) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
    """Return the gradient g behind the rectifier (`grad` itself where `out` is None), sum(g) and sum(g*z), `[n c]`."""
    del mean  # the other kernels sum around it; here the sums are taken as they are
    space = _space(z)
    g = grad if out is None else torch.empty_like(z)
    ones, products = [], []
    for s in slices(z):
        if out is not None:
            aten.threshold_backward.grad_input(grad[s], out[s], 0, grad_input=g[s])
        part = widen(g[s])
        ones.append(part.sum(space))
        products.append((part * widen(z[s])).sum(space))
    return g, torch.cat(ones).double(), torch.cat(products).double()


def rectified(grad: FeatureMap, out: FeatureMap | None, z: FeatureMap) -> FeatureMap:
    """Return g alone."""
    del z
    return grad if out is None else aten.threshold_backward(grad, out, 0)


def grad_input(
    g: FeatureMap,
    z: FeatureMap,
    a: torch.Tensor,
    q: torch.Tensor | None,
    p: torch.Tensor | None,
    mean: torch.Tensor | None,
    d: torch.Tensor | None = None,
    basis: torch.Tensor | None = None,
) -> FeatureMap:
    """Return `a*g + q*(z - mean) + p + d*basis`; coefficients `[n c]`, basis `[c *space]`, None counts as zero."""
    if q is not None and mean is not None:
        p = -q * mean.double() if p is None else p - q * mean.double()
    wide = spread(a, z)
    q_, p_, d_ = (None if x is None else spread(x, z) for x in (q, p, d))
    dz = torch.empty_like(z)
    for s in slices(z):
        narrow = dz.dtype != wide.dtype
        work = torch.empty_like(z[s], dtype=wide.dtype) if narrow else dz[s]
        torch.mul(widen(g[s]), wide[s], out=work)
        if q_ is not None:
            work.addcmul_(widen(z[s]), q_[s])
        if p_ is not None:
            work.add_(p_[s])
        if d_ is not None and basis is not None:
            work.addcmul_(d_[s], basis)
        if narrow:
            dz[s].copy_(work)
    return dz
