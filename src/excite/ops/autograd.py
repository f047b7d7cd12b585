"""The differentiable parts of the fused tail.

    z ─> TakeMoments ─> mean, variance ─> Recomputed: norm, squeeze ─> scale, offset, descriptor ─> gate ─> w ─┐
              └───> z', carrier ─────────────────────────────────> AffineTail: relu(w (scale z' + offset) + shortcut)

The gradient of z has a part from each end. `AffineTail` sends g (what is left of the gradient behind the rectifier, a
map it must write for the shortcut anyway) back by the carrier, and `TakeMoments` returns `a g + q (z - mean) + p` in
one pass.
Saved are z, the output (which the next layer saves too) and a few `[n c]` numbers; what lies between is made again.
Under create_graph=True every backward is made of differentiable operations.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from excite.ops.precision import widen
from excite.types import FeatureMap

Tensors: TypeAlias = tuple[torch.Tensor | None, ...]


class Link:
    """What the two ends share: the scale a `[n c]` that goes with the gradient on the carrier."""

    scale: torch.Tensor | None = None


class TakeMoments(torch.autograd.Function):
    """z, basis -> z', carrier, mean, variance, projection. The carrier holds no memory; its gradient is g."""

    @staticmethod
    def forward(
        ctx: Any, z: FeatureMap, basis: torch.Tensor | None, wants: tuple[bool, bool], link: Link, kernels: Any
    ) -> Tensors:
        """Take the moments; wants: (variance, exact per sample)."""
        mean, variance, projection = kernels.moments(z, *wants, basis)
        ctx.link, ctx.kernels = link, kernels
        ctx.save_for_backward(z, mean, basis)
        ctx.set_materialize_grads(False)
        return z, z.new_empty(()).expand(z.shape), mean, variance, projection

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Tensors:
        """Return the gradient of z."""
        direct, g, grad_mean, grad_variance, grad_projection = grads
        if all(x is None for x in grads):
            return None, None, None, None, None
        z, mean, basis = ctx.saved_tensors
        count = z[0, 0].numel()
        q = None if grad_variance is None else grad_variance.double() * (2 / count)
        p = None if grad_mean is None else grad_mean.double() / count
        if torch.is_grad_enabled():
            return _slow_grad_input(direct, z, q, p, grad_projection, basis), None, None, None, None
        scale = ctx.link.scale
        if g is None:
            g, scale = (z, torch.zeros_like(mean)) if direct is None else (direct, torch.ones_like(mean))
            direct = None
        dz = ctx.kernels.grad_input(g, z, scale, q, p, mean, grad_projection, basis)
        return dz if direct is None else dz.add_(direct), None, None, None, None


class Recomputed(torch.autograd.Function):
    """compute, *tensors -> compute(*tensors), a tuple; only the inputs are saved. compute must have no parameters."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Tensors], *inputs: torch.Tensor | None) -> Tensors:
        """Run `compute`."""
        ctx.compute = compute
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return compute(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Tensors:
        """Run it again and differentiate."""
        again = torch.is_grad_enabled()
        inputs = [x if again or x is None else x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            made = ctx.compute(*inputs)
        both = zip(made, grads, strict=True)
        pairs = [(y, g) for y, g in both if y is not None and g is not None and y.requires_grad]
        wanted = [i for i, x in enumerate(inputs) if x is not None and ctx.needs_input_grad[i + 1]]
        found: list[torch.Tensor | None] = [None] * (len(inputs) + 1)
        if pairs and wanted:
            outputs, cotangents = zip(*pairs, strict=True)
            sought = [inputs[i] for i in wanted]
            got = torch.autograd.grad(outputs, sought, cotangents, create_graph=again, allow_unused=True)
            for i, g in zip(wanted, got, strict=True):
                found[i + 1] = g
        return tuple(found)


class AffineTail(torch.autograd.Function):
    """z', scale, offset `[c]`, w `[n c]` or None, shortcut -> relu(w (scale z' + offset) + shortcut)."""

    @staticmethod
    def forward(
        ctx: Any,
        z: FeatureMap,
        carrier: torch.Tensor | None,
        scale: torch.Tensor,
        offset: torch.Tensor,
        weights: torch.Tensor | None,
        shortcut: FeatureMap | None,
        mean: torch.Tensor | None,
        relu: bool,
        link: Link | None,
        kernels: Any,
    ) -> FeatureMap:
        """Return the output; mean: a centre for the backward sums; carrier, link: of `TakeMoments`, or None."""
        out = kernels.affine(z, _product(scale, weights, z), _product(offset, weights, z), shortcut, relu)
        ctx.link, ctx.kernels = link, kernels
        ctx.save_for_backward(z, scale, offset, weights, out if relu else None, mean)
        return out

    @staticmethod
    def backward(ctx: Any, grad: FeatureMap) -> tuple[FeatureMap | None, ...]:
        """Return the gradients of z', carrier, scale, offset, w and the shortcut."""
        z, scale, offset, weights, out, mean = ctx.saved_tensors
        needs_z, _, needs_scale, needs_offset, needs_w, needs_shortcut, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            g, sum_g, sum_gz = _slow_grad_sums(grad, out, z)
        elif needs_scale or needs_offset or needs_w:
            g, sum_g, sum_gz = ctx.kernels.grad_sums(grad, out, z, mean)
        else:
            g, sum_g, sum_gz = ctx.kernels.rectified(grad, out, z), None, None
        ends = _for_z(ctx, g, z, _product(scale, weights, z)) if needs_z else (None, None)
        small: list[torch.Tensor | None] = [None, None, None]
        if sum_g is not None and sum_gz is not None:
            wide = 1.0 if weights is None else weights.double()
            small = [(sum_gz * wide).sum(0), (sum_g * wide).sum(0), None]
            if weights is not None:
                small[2] = (sum_gz * scale + sum_g * offset).to(weights.dtype)
        return *ends, *small, g if needs_shortcut else None, None, None, None, None


def _product(x: torch.Tensor, weights: torch.Tensor | None, z: FeatureMap) -> torch.Tensor:
    return x.expand(z.shape[:2]) if weights is None else x * weights.double()


def _for_z(ctx: Any, g: FeatureMap, z: FeatureMap, a: torch.Tensor) -> Tensors:
    if torch.is_grad_enabled():
        return (widen(g) * _spread(a, z)).to(z.dtype), None
    if ctx.link is None:
        return ctx.kernels.grad_input(g, z, a, None, None, None), None
    ctx.link.scale = a.detach()  # with its graph it would close a cycle through the two nodes
    return None, g


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
    direct: FeatureMap | None,
    z: FeatureMap,
    q: torch.Tensor | None,
    p: torch.Tensor | None,
    d: torch.Tensor | None,
    basis: torch.Tensor | None,
) -> FeatureMap:
    # Differentiable, as above; nothing comes by the carrier then. The mean is a function of z here.
    dz = torch.zeros_like(widen(z)) if direct is None else widen(direct)
    if q is not None:
        wide = widen(z)
        dz = dz + _spread(q, z) * (wide - wide.mean(tuple(range(2, z.dim())), keepdim=True))
    if p is not None:
        dz = dz + _spread(p, z)
    if d is not None and basis is not None:
        dz = dz + _spread(d, z) * basis
    return dz.to(z.dtype)
