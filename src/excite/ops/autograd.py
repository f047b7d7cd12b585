"""The two differentiable halves of the fused tail; between them the gate is an ordinary small graph on `[n c]`.

    z ──> TakeMoments ──> z', mean, variance ──> norm, squeeze, gate ──> a, b ──┐
                           └────────────────────────────────────────────> AffineTail ──> relu(a z' + b + shortcut)

The gradient of z has a part from each half. `AffineTail` sends g (what is left of the gradient behind the rectifier,
a map it must write for the shortcut anyway) along z', and `TakeMoments` returns `a g + q (z - mean) + p` in one pass.
Saved are z, the output (which the next layer saves too) and `[n c]` numbers.
"""

from typing import Any

import torch
from torch.autograd.function import FunctionCtx

from excite.ops.precision import widen
from excite.types import FeatureMap


class Link:
    """What the two halves share: the scale a, or None when z' already carries the true gradient."""

    scale: torch.Tensor | None = None


class TakeMoments(torch.autograd.Function):
    """z, basis -> z', mean, variance, projection."""

    @staticmethod
    def forward(
        ctx: Any, z: FeatureMap, basis: torch.Tensor | None, wants: tuple[bool, bool], link: Link, kernels: Any
    ) -> tuple[torch.Tensor | None, ...]:
        """Take the moments; wants: (variance, exact per sample)."""
        mean, variance, projection = kernels.moments(z, *wants, basis)
        ctx.link, ctx.kernels = link, kernels
        ctx.save_for_backward(z, mean, basis)
        ctx.set_materialize_grads(False)
        return z, mean, variance, projection

    @staticmethod
    def backward(
        ctx: Any,
        g: FeatureMap | None,
        grad_mean: torch.Tensor | None,
        grad_variance: torch.Tensor | None,
        grad_projection: torch.Tensor | None,
    ) -> tuple[FeatureMap | None, ...]:
        """Return the gradient of z."""
        if g is None and grad_mean is None and grad_variance is None and grad_projection is None:
            return None, None, None, None, None
        z, mean, basis = ctx.saved_tensors
        count = z[0, 0].numel()
        q = None if grad_variance is None else grad_variance * (2 / count)
        p = None if grad_mean is None else grad_mean / count
        if torch.is_grad_enabled():
            return _slow_grad_input(g, z, q, p, mean, grad_projection, basis), None, None, None, None
        scale = ctx.link.scale
        if g is None:
            g, scale = z, torch.zeros_like(mean)
        elif scale is None:
            scale = torch.ones_like(mean)
        dz = ctx.kernels.grad_input(g, z, scale, q, p, mean, grad_projection, basis)
        return dz, None, None, None, None


class AffineTail(torch.autograd.Function):
    """z', a, b, shortcut -> relu(a z' + b + shortcut); a, b `[n c]`."""

    @staticmethod
    def forward(
        ctx: Any,
        z: FeatureMap,
        a: torch.Tensor,
        b: torch.Tensor,
        shortcut: FeatureMap | None,
        mean: torch.Tensor | None,
        relu: bool,
        link: Link | None,
        kernels: Any,
    ) -> FeatureMap:
        """Return the output; mean: a centre for the backward sums; link: None where z comes without moments."""
        out = kernels.affine(z, a, b, shortcut, relu)
        ctx.link, ctx.kernels = link, kernels
        ctx.save_for_backward(z, a, out if relu else None, mean)
        return out

    @staticmethod
    def backward(ctx: Any, grad: FeatureMap) -> tuple[FeatureMap | None, ...]:
        """Return the gradients of z', a, b and the shortcut."""
        z, a, out, mean = ctx.saved_tensors
        needs_z, _, _, needs_shortcut, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            g, sum_g, sum_gz = _slow_grad_sums(grad, out, z)
        else:
            g, sum_g, sum_gz = ctx.kernels.grad_sums(grad, out, z, mean)
        gz = None
        if needs_z:
            gz = _for_z(ctx, g, z, a)
        return gz, sum_gz, sum_g, g if needs_shortcut else None, None, None, None, None


def _for_z(ctx: FunctionCtx | Any, g: FeatureMap, z: FeatureMap, a: torch.Tensor) -> FeatureMap:
    if torch.is_grad_enabled():
        if ctx.link is not None:
            ctx.link.scale = None
        return (widen(g) * _spread(a, z)).to(z.dtype)
    if ctx.link is None:
        return ctx.kernels.grad_input(g, z, a, None, None, None)
    ctx.link.scale = a.detach()  # with its graph it would close a cycle through the two nodes
    return g


def _spread(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    return x.to(widen(z).dtype).reshape(x.shape + (1,) * (z.dim() - 2))


def _slow_grad_sums(
    grad: FeatureMap, out: FeatureMap | None, z: FeatureMap
) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
    # Differentiable: taken under create_graph=True.
    g = grad if out is None else grad * (out > 0)
    space = tuple(range(2, z.dim()))
    return g, widen(g).sum(space).double(), (widen(g) * widen(z)).sum(space).double()


def _slow_grad_input(
    g: FeatureMap | None,
    z: FeatureMap,
    q: torch.Tensor | None,
    p: torch.Tensor | None,
    mean: torch.Tensor,
    d: torch.Tensor | None,
    basis: torch.Tensor | None,
) -> FeatureMap:
    # Differentiable, as above; z' then carries its true gradient. The mean is a function of z here.
    dz = torch.zeros_like(widen(z)) if g is None else widen(g)
    if q is not None:
        wide = widen(z)
        dz = dz + _spread(q, z) * (wide - wide.mean(tuple(range(2, z.dim())), keepdim=True))
    if p is not None:
        dz = dz + _spread(p, z)
    if d is not None and basis is not None:
        dz = dz + _spread(d, z) * basis
    return dz.to(z.dtype)
