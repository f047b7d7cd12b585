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
from typing import Any, NamedTuple

import torch

from excite.ops.precision import widen
from excite.ops.tail.kernels import Affine, AffineGrads, Carried, GradSums, Kernels
from excite.ops.tail.moments import Moments, Normalised, NormalisedGrads, Numbers, Saved, Settings, normalise, small
from excite.types import FeatureMap

# Any: torch calls autograd functions with a context and returns that have no types.


class Link:
    """What the ends share besides tensors: the scale a `[n c]` that goes with the gradient on the carrier."""

    scale: torch.Tensor | None = None


class Standardised(NamedTuple):
    """What `Standardise` returns: z again, the carrier, and the fields of `Normalised`."""

    z: FeatureMap
    carrier: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    mu: torch.Tensor
    mean: Numbers
    variance: Numbers
    projection: Numbers

    @property
    def normalised(self) -> Normalised:
        """The description of the normalised map."""
        return Normalised(self.scale, self.bias, self.mu, self.mean, self.variance, self.projection)


class StandardisedGrads(NamedTuple):
    """The gradients of the fields of `Standardised`; None is zero."""

    z: FeatureMap | None
    carrier: FeatureMap | None
    scale: Numbers
    bias: Numbers
    mu: Numbers
    mean: Numbers
    variance: Numbers
    projection: Numbers

    @property
    def normalised(self) -> NormalisedGrads:
        """The gradients of the description of the normalised map."""
        return NormalisedGrads(self.scale, self.bias, self.mu, self.mean, self.variance, self.projection)


class StandardiseGrads(NamedTuple):
    """One entry for each argument of `Standardise.forward`."""

    z: FeatureMap | None = None
    basis: None = None
    gamma: Numbers = None
    beta: Numbers = None
    settings: None = None
    link: None = None
    kernels: None = None


class Standardise(torch.autograd.Function):
    """z, basis, gamma, beta -> the fields of `Standardised`. The carrier holds no memory; its gradient is g."""

    @staticmethod
    def forward(
        ctx: Any,  # of autograd, which has no type for it
        z: FeatureMap,
        basis: Numbers,
        gamma: Numbers,
        beta: Numbers,
        settings: Settings,
        link: Link,
        kernels: Kernels,
    ) -> Standardised:
        """Take the moments and what follows from them."""
        moments, inverse, y = kernels.standardise(z, basis, gamma, beta, settings)
        ctx.settings, ctx.link, ctx.kernels = settings, link, kernels
        # The variance is needed again for the gradients of descriptions made of it only.
        variance = moments.variance if settings.second else None
        saved = Saved(z, basis, gamma, beta, moments.mean, variance, moments.projection, y.scale, y.mu, inverse)
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        return Standardised(z, z.new_empty(()).expand(z.shape), *y)

    @staticmethod
    def backward(ctx: Any, *tensors: torch.Tensor | None) -> StandardiseGrads:
        """Return the gradients of z, gamma and beta."""
        grads, saved = StandardisedGrads(*tensors), Saved(*ctx.saved_tensors)
        if torch.is_grad_enabled():
            return _slow_standardise(ctx.settings, saved, grads)
        carried, direct = None, grads.z
        if grads.carrier is not None:
            carried = Carried(grads.carrier, ctx.link.scale)
        elif direct is not None:
            assert saved.mean is not None  # saved wherever z has a gradient
            carried, direct = Carried(direct, torch.ones_like(saved.mean)), None
        found = ctx.kernels.grad_standardise(saved, carried, grads.normalised, ctx.settings)
        dz = found.z
        if direct is not None:
            dz = direct if dz is None else dz.add_(direct)
        return StandardiseGrads(dz, gamma=found.gamma, beta=found.beta)


def _slow_standardise(settings: Settings, saved: Saved, grads: StandardisedGrads) -> StandardiseGrads:
    # Differentiable: everything is taken again from z, in plain operations. Nothing comes by the carrier then.
    z, basis, gamma, beta = saved.z, saved.basis, saved.gamma, saved.beta
    inputs = [x for x in (z, gamma, beta) if x is not None and x.requires_grad]
    with torch.enable_grad():
        wide, space = widen(z), tuple(range(2, z.dim()))
        mean = wide.mean(space)
        centred = wide - mean.reshape(mean.shape + (1,) * len(space))
        projection = None if basis is None else (wide * basis).sum(space)
        moments = Moments(mean, centred.square().mean(space), projection)
        # The buffers may have moved on: those of the forward pass follow from what was saved.
        running = saved.mu, saved.inverse.pow(-2) - settings.eps
        y = normalise(moments, gamma, beta, basis, settings._replace(momentum=0.0, running=running)).normalised
    pairs = [
        (output, grad)
        for output, grad in zip(y, grads.normalised, strict=True)
        if output is not None and grad is not None and output.requires_grad
    ]
    gradient_of: dict[int, torch.Tensor | None] = {}
    if pairs and inputs:
        outputs, cotangents = zip(*pairs, strict=True)
        gradients = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True, allow_unused=True)
        gradient_of = {id(x): g for x, g in zip(inputs, gradients, strict=True)}
    dz = gradient_of.get(id(z))
    if grads.z is not None:
        dz = grads.z if dz is None else dz + grads.z
    return StandardiseGrads(dz, gamma=gradient_of.get(id(gamma)), beta=gradient_of.get(id(beta)))


class TailInputs(NamedTuple):
    """One entry for each argument of `AffineTail.forward`: its gradient, or whether one is needed."""

    z: Any = None
    carrier: Any = None
    scale: Any = None
    bias: Any = None
    mu: Any = None
    weights: Any = None
    shortcut: Any = None
    ceiling: Any = None
    link: Any = None
    kernels: Any = None


class TailSaved(NamedTuple):
    """What the backward pass of the second pass needs; out: where there is a rectifier."""

    z: FeatureMap
    scale: torch.Tensor
    bias: torch.Tensor
    mu: torch.Tensor
    weights: Numbers
    out: FeatureMap | None

    @property
    def affine(self) -> Affine:
        """The map's coefficients."""
        return Affine(self.scale, self.bias, self.mu, self.weights)


class AffineTail(torch.autograd.Function):
    """z', scale, bias, mu `[c]`, w `[n c]` or None, shortcut -> relu(w (scale (z' - mu) + bias) + shortcut).

    The rectifier is as `ceiling` says (`plan.ceiling_of`).
    """

    @staticmethod
    def forward(
        ctx: Any,  # of autograd, which has no type for it
        z: FeatureMap,
        carrier: torch.Tensor | None,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mu: torch.Tensor,
        weights: Numbers,
        shortcut: FeatureMap | None,
        ceiling: float | None,
        link: Link | None,
        kernels: Kernels,
    ) -> FeatureMap:
        """Return the output; carrier, link: of `Standardise`, or None."""
        out = kernels.scaled(z, Affine(scale, bias, mu, weights), shortcut, ceiling)
        ctx.link, ctx.kernels, ctx.ceiling = link, kernels, ceiling
        ctx.save_for_backward(*TailSaved(z, scale, bias, mu, weights, None if ceiling is None else out))
        return out

    @staticmethod
    def backward(ctx: Any, grad: FeatureMap) -> TailInputs:
        """Return the gradients of z', carrier, scale, bias, mu, w and the shortcut."""
        saved, needs = TailSaved(*ctx.saved_tensors), TailInputs(*ctx.needs_input_grad)
        z, by, kernels = saved.z, saved.affine, ctx.kernels
        numbers: AffineGrads | None = None
        if torch.is_grad_enabled():
            sums = _slow_grad_sums(grad, saved, ctx.ceiling)
            g, a, numbers = sums.g, by.factor(z), by.differentiate(sums.total, sums.product, z)
        elif needs.scale or needs.bias or needs.mu or needs.weights:
            g, a, numbers = kernels.grad_scaled(grad, saved.out, z, by, ctx.ceiling)
        else:
            g, a = _rectified(kernels, grad, saved, ctx.ceiling), by.factor(z)
        grads = TailInputs(shortcut=g if needs.shortcut else None)
        if numbers is not None:
            grads = grads._replace(**numbers._asdict())
        if not needs.z:
            return grads
        if torch.is_grad_enabled():
            return grads._replace(z=(widen(g) * _spread(a, z)).to(z.dtype))
        if ctx.link is None:
            return grads._replace(z=kernels.grad_input(g, z, a))
        ctx.link.scale = a.detach()  # with its graph it would close a cycle through the two nodes
        return grads._replace(carrier=g)


def _rectified(kernels: Kernels, grad: FeatureMap, saved: TailSaved, ceiling: float | None) -> FeatureMap:
    # The gradient behind the rectifier; where `out` is None there is none.
    if saved.out is not None and ceiling != math.inf:
        return torch.ops.aten.hardtanh_backward(grad, saved.out, 0.0, ceiling)
    return kernels.rectified(grad, saved.out, saved.z)


def _spread(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    return x.reshape(x.shape + (1,) * (z.dim() - 2))


def _slow_grad_sums(grad: FeatureMap, saved: TailSaved, ceiling: float | None) -> GradSums:
    # Differentiable: taken under create_graph=True.
    g, out, z = grad, saved.out, saved.z
    if out is not None and ceiling is not None:
        g = grad * (out > 0) if ceiling == math.inf else grad * ((out > 0) & (out < ceiling))
    space = tuple(range(2, z.dim()))
    off = widen(z) - _spread(small(saved.mu, z), z)
    return GradSums(g, widen(g).sum(space), (widen(g) * off).sum(space))
