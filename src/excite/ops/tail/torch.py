"""The passes of the fused tail in plain PyTorch, blocked so that a slice of the map stays in the cache.

Each function walks over the samples a few at a time: what would be several passes over memory is one, because the
second operation on a slice finds it in the cache. Half precision is widened slice by slice, sums are float32 or wider.
"""

from collections.abc import Iterator

import torch

from excite.ops.precision import widen
from excite.ops.tail.kernels import GradSums
from excite.ops.tail.moments import Moments
from excite.types import FeatureMap

aten = torch.ops.aten

# A slice of z, of the shortcut and of the output fit together into the caches; more slices are more calls.
SLICE_BYTES = 1 << 22
# In channels-last, batch norm's own fused sums are called once per sample where a sample of the map has these bytes:
# below, the calls cost more than they save. Measured for maps of 4x4 to 112x112 on two cores.
MOMENTS_BYTES, EXACT_BYTES, GRADIENT_BYTES = 1 << 20, 1 << 18, 3 << 17
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


def moments(z: FeatureMap, second: bool, per_sample: bool, basis: torch.Tensor | None = None) -> Moments:
    """Return mean, biased variance and projection over space, `[n c]` each (float32, or as wide as z), in one pass.

    second: whether the variance is wanted; per_sample: whether it must be exact for every sample, not for the batch
    only; basis: `[c *space]`, the projection is `sum(basis * z)` over space.
    """
    if second and basis is None and is_channels_last(z) and z.dtype in (torch.float32, torch.float64):
        sample = z[:1].numel() * z.element_size()
        if sample >= (EXACT_BYTES if per_sample else MOMENTS_BYTES):
            pairs = [_statistics(z[i : i + 1]) for i in range(z.shape[0])]
            return Moments(torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]), None)
        if not per_sample:
            return Moments(*_shared_variance(z), None)
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
        return Moments(mean.to(wide), None, projection)
    variance = torch.cat(squares).double() / count
    if not per_sample:
        variance = (variance - mean.square()).clamp_(min=0)
        total = variance.mean(0) + mean.var(0, unbiased=False)
        if bool((mean.square().mean(0) > CANCELLATION * total).any()):
            variance = _centred(z, mean)
    return Moments(mean.to(wide), variance.to(wide), projection)


def _statistics(z: FeatureMap) -> tuple[torch.Tensor, torch.Tensor]:
    # Mean and biased variance over batch and space, `[c]`, in one fused call.
    mean, variance = aten.batch_norm_update_stats(z, None, None, 0.0)
    return mean, variance


def _shared_variance(z: FeatureMap) -> tuple[torch.Tensor, torch.Tensor]:
    # The variance of the batch, shared out so that `variance + (mean - mu)^2` averages to it.
    mean, (mu, variance) = z.mean(_space(z)), _statistics(z)
    return mean, variance - (mean - mu).square_()


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


def grad_sums(grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, mu: torch.Tensor) -> GradSums:
    """Return the gradient g behind the rectifier (`grad` where `out` is None) and its sums; mu: `[c]`."""
    g = grad if out is None else torch.empty_like(z)
    mu = mu.to(widen(z[:0]).dtype)
    ones, products = [], []
    for s in slices(z):
        if out is not None:
            aten.threshold_backward.grad_input(grad[s], out[s], 0, grad_input=g[s])
        one, product = _both_sums(widen(g[s]), widen(z[s]), mu)
        ones.append(one)
        products.append(product)
    return GradSums(g, torch.cat(ones), torch.cat(products))


def _both_sums(g: FeatureMap, z: FeatureMap, mu: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # sum(g) and sum(g * (z - mu)) over space, `[n c]`. Batch norm's backward pass takes both in one reading.
    (n, c), count = z.shape[:2], z[0, 0].numel()
    if z.is_contiguous() and g.is_contiguous():
        ones, products = _norm_sums(g.view(1, n * c, count), z.view(1, n * c, count), mu.repeat(n))
        return ones.view(n, c), products.view(n, c)
    if is_channels_last(z) and is_channels_last(g) and count * c * z.element_size() >= GRADIENT_BYTES:
        pairs = [_norm_sums(g[i : i + 1], z[i : i + 1], mu) for i in range(n)]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])
    # A product with a row of ones is the fastest sum over the outer axis of many small maps.
    rows = [x.movedim(1, -1).reshape(n, count, c) for x in (g, z)]
    row = z.new_ones(1, 1, count).expand(n, 1, count)
    return torch.bmm(row, rows[0])[:, 0], torch.bmm(row, (rows[1] - mu).mul_(rows[0]))[:, 0]


def _norm_sums(g: FeatureMap, z: FeatureMap, mu: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Returned are gradients of bias and weight for a standard deviation of one.
    one = torch.ones_like(mu)
    made = aten.native_batch_norm_backward(g, z, None, None, None, mu, one, True, 0.0, [False, True, True])
    return made[2], made[1]


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
    mu: torch.Tensor | None,
    d: torch.Tensor | None = None,
    basis: torch.Tensor | None = None,
) -> FeatureMap:
    """Return `a*g + q*(z - mu) + p + d*basis`; coefficients `[n c]`, mu `[c]`, basis `[c *space]`, None is zero."""
    if q is not None and mu is not None:
        p = -q * mu if p is None else torch.addcmul(p, q, mu, value=-1)
    wide = spread(a, z)
    q_, p_, d_ = (None if x is None else spread(x, z) for x in (q, p, d))
    dz = torch.empty_like(z)
    for s in slices(z):
        narrow = dz.dtype != wide.dtype
        work = torch.empty_like(z[s], dtype=wide.dtype) if narrow else dz[s]
        last = is_channels_last(work)
        if last and p_ is not None:
            # Two broadcast factors in one call: fast where the channels are the inner loop, slow elsewhere.
            torch.addcmul(p_[s], widen(g[s]), wide[s], out=work)
        else:
            torch.mul(widen(g[s]), wide[s], out=work)
        if q_ is not None:
            work.addcmul_(widen(z[s]), q_[s])
        if p_ is not None and not last:
            work.add_(p_[s])
        if d_ is not None and basis is not None:
            work.addcmul_(d_[s], basis)
        if narrow:
            dz[s].copy_(work)
    return dz
