"""The differentiable parts of the fused tail.

    z ─> Standardise ─> scale, bias, mu `[c]`, moments of the normalised map `[n c]` ─> squeeze ─> gate ─> w ─┐
              └───> z', carrier ─────────────> AffineTail: relu(w (scale (z' - mu) + bias) + shortcut)

The gradient of z has a part from each end. `AffineTail` sends g (what is left of the gradient behind the rectifier, a
map it must write for the shortcut anyway) back by the carrier, and `Standardise` returns `a g + q (z - mu) + p` in one
pass.
Saved are z, the output (which the next layer saves too) and a few `[n c]` numbers.
Under create_graph=True every backward is made of differentiable operations.
"""

import math
from typing import Any, TypeAlias

import torch

from excite.ops.kernels import Affine
from excite.ops.precision import widen
from excite.ops.standardise import Job, Moments, Standard, small, standard
from excite.types import FeatureMap

Tensors: TypeAlias = tuple[torch.Tensor | None, ...]


class Link:
    """What the ends share besides tensors: the scale a `[n c]` that goes with the gradient on the carrier."""

    scale: torch.Tensor | None = None


class Standardise(torch.autograd.Function):
    """z, basis, gamma, beta -> z', carrier, scale, bias, mu, first, second, projection (see `standardise.standard`).

    The carrier holds no memory; its gradient is g.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: FeatureMap,
        basis: torch.Tensor | None,
        gamma: torch.Tensor | None,
        beta: torch.Tensor | None,
        job: Job,
        link: Link,
        kernels: Any,
    ) -> Tensors:
        """Take the moments and what follows from them."""
        moments, made = kernels.standardise(z, basis, gamma, beta, job)
        ctx.job, ctx.link, ctx.kernels = job, link, kernels
        # The variance is needed again for the gradients of descriptions made of it only.
        kept = moments if job.second else moments._replace(variance=None)
        ctx.save_for_backward(z, basis, gamma, beta, *kept, *made[:4])
        ctx.set_materialize_grads(False)
        return z, z.new_empty(()).expand(z.shape), *made[:3], *made[4:]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Tensors:
        """Return the gradients of z, gamma and beta."""
        direct, g, *others = grads
        if torch.is_grad_enabled():
            return _slow_standardise(ctx, direct, others)
        z, basis, gamma, beta, mean, variance, projection, *made = ctx.saved_tensors
        a = ctx.link.scale
        if g is None:
            g, direct = direct, None
            a = None if g is None else torch.ones_like(mean)
        dz, for_gamma, for_beta = ctx.kernels.grad_standardise(
            *((g, a), z, basis, (gamma, beta), Moments(mean, variance, projection), Standard(*made), others, ctx.job)
        )
        if direct is not None:
            dz = direct if dz is None else dz.add_(direct)
        return dz, None, for_gamma, for_beta, None, None, None


def _slow_standardise(ctx: Any, direct: FeatureMap | None, others: list[torch.Tensor | None]) -> Tensors:
    # Differentiable: everything is taken again from z, in plain operations. Nothing comes by the carrier then.
    z, basis, gamma, beta, *_, mu, inverse = ctx.saved_tensors
    inputs = [x for x in (z, gamma, beta) if x is not None and x.requires_grad]
    with torch.enable_grad():
        wide, space = widen(z), tuple(range(2, z.dim()))
        mean = wide.mean(space)
        centred = wide - mean.reshape(mean.shape + (1,) * len(space))
        projection = None if basis is None else (wide * basis).sum(space)
        moments = Moments(mean, centred.square().mean(space), projection)
        # The buffers may have moved on: those of the forward pass follow from what was saved.
        job = ctx.job._replace(momentum=0.0, running=(mu, inverse.pow(-2) - ctx.job.eps))
        made = standard(moments, gamma, beta, basis, job)
    pairs = [
        (y, g)
        for y, g in zip((*made[:3], *made[4:]), others, strict=True)
        if y is not None and g is not None and y.requires_grad
    ]
    found: dict[int, torch.Tensor | None] = {}
    if pairs and inputs:
        outputs, cotangents = zip(*pairs, strict=True)
        got = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True, allow_unused=True)
        found = {id(x): g for x, g in zip(inputs, got, strict=True)}
    dz = found.get(id(z))
    if direct is not None:
        dz = direct if dz is None else dz + direct
    return dz, None, found.get(id(gamma)), found.get(id(beta)), None, None, None


class AffineTail(torch.autograd.Function):
    """z', scale, bias, mu `[c]`, w `[n c]` or None, shortcut -> relu(w (scale (z' - mu) + bias) + shortcut).

    The rectifier is as `ceiling` says (`eligible.ceiling_of`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: FeatureMap,
        carrier: torch.Tensor | None,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mu: torch.Tensor,
        weights: torch.Tensor | None,
        shortcut: FeatureMap | None,
        ceiling: float | None,
        link: Link | None,
        kernels: Any,
    ) -> FeatureMap:
        """Return the output; carrier, link: of `Standardise`, or None."""
        out: FeatureMap = kernels.scaled(z, Affine(scale, bias, mu, weights), shortcut, ceiling)
        ctx.link, ctx.kernels, ctx.ceiling = link, kernels, ceiling
        ctx.save_for_backward(z, scale, bias, mu, weights, None if ceiling is None else out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: FeatureMap) -> Tensors:
        """Return the gradients of z', carrier, scale, bias, mu, w and the shortcut."""
        z, *numbers, out = ctx.saved_tensors
        by = Affine(*numbers)
        needs_z, _, *needs_small, needs_shortcut, _, _, _ = ctx.needs_input_grad
        for_small: list[torch.Tensor | None] = [None] * 4
        if torch.is_grad_enabled():
            g, sum_g, sum_gz = _slow_grad_sums(grad, out, z, by.mu, ctx.ceiling)
            a, for_small = by.factor(z), by.share(sum_g, sum_gz, z)
        elif any(needs_small):
            g, a, for_small = ctx.kernels.grad_scaled(grad, out, z, by, ctx.ceiling)
        else:
            g, a = _rectified(ctx, grad, out, z), by.factor(z)
        ends = _for_z(ctx, g, z, a) if needs_z else (None, None)
        return *ends, *for_small, g if needs_shortcut else None, None, None, None


def _rectified(ctx: Any, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap) -> FeatureMap:
    # The gradient behind the rectifier; where `out` is None there is none.
    if out is not None and ctx.ceiling != math.inf:
        return torch.ops.aten.hardtanh_backward(grad, out, 0.0, ctx.ceiling)
    found: FeatureMap = ctx.kernels.rectified(grad, out, z)
    return found


def _for_z(ctx: Any, g: FeatureMap, z: FeatureMap, a: torch.Tensor) -> Tensors:
    if torch.is_grad_enabled():
        return (widen(g) * _spread(a, z)).to(z.dtype), None
    if ctx.link is None:
        return ctx.kernels.grad_input(g, z, a, None, None, None), None
    ctx.link.scale = a.detach()  # with its graph it would close a cycle through the two nodes
    return None, g


def _spread(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    return x.reshape(x.shape + (1,) * (z.dim() - 2))


def _slow_grad_sums(
    grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, mu: torch.Tensor, ceiling: float | None
) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
    # Differentiable: taken under create_graph=True.
    g = grad
    if out is not None and ceiling is not None:
        g = grad * (out > 0) if ceiling == math.inf else grad * ((out > 0) & (out < ceiling))
    space = tuple(range(2, z.dim()))
    return g, widen(g).sum(space), (widen(g) * (widen(z) - _spread(small(mu, z), z))).sum(space)
