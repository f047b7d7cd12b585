"""What the fused tail asks of its kernels: five passes over the map, and the numbers between them."""

import math
from typing import NamedTuple, Protocol

import torch

from excite.ops.precision import wide_type
from excite.ops.tail.moments import (
    Moments,
    NormalisedGrads,
    Numbers,
    Saved,
    Settings,
    Statistics,
    differentiate,
    normalise,
    small,
)
from excite.types import FeatureMap


class AffineGrads(NamedTuple):
    """The gradients of the fields of `Affine`."""

    scale: torch.Tensor
    bias: torch.Tensor
    mu: torch.Tensor
    weights: Numbers


class Affine(NamedTuple):
    """`w (scale (z - mu) + bias)`: scale, bias, mu `[c]` in double, weights w `[n c]` or None (ones)."""

    scale: torch.Tensor
    bias: torch.Tensor
    mu: torch.Tensor
    weights: Numbers

    def factor(self, z: FeatureMap) -> torch.Tensor:
        """Return `a = w scale` `[n c]` in the working type of z."""
        return self._weighted(self.scale, z)

    def offset(self, z: FeatureMap) -> torch.Tensor:
        """Return `b = w (bias - mu scale)` `[n c]` in the working type of z."""
        return self._weighted(self.bias - self.mu * self.scale, z)

    def _weighted(self, x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
        x = small(x, z)
        return x.expand(z.shape[:2]) if self.weights is None else small(self.weights, z) * x

    def differentiate(self, sum_g: torch.Tensor, sum_gz: torch.Tensor, z: FeatureMap) -> AffineGrads:
        """Return the gradients of scale, bias, mu and w from the sums of g and of g (z - mu), `[n c]`."""
        w = 1.0 if self.weights is None else small(self.weights, z)
        for_bias = (sum_g * w).sum(0).to(self.bias.dtype)
        for_scale = (sum_gz * w).sum(0).to(self.scale.dtype)
        for_weights = None
        if self.weights is not None:
            for_weights = (sum_gz * small(self.scale, z) + sum_g * small(self.bias, z)).to(self.weights.dtype)
        return AffineGrads(for_scale, for_bias, -for_bias * self.scale, for_weights)


class GradSums(NamedTuple):
    """The gradient g behind the rectifier `[n c *space]`, and the sums of g and of g (z - mu) over space `[n c]`."""

    g: FeatureMap
    total: torch.Tensor
    product: torch.Tensor


class Carried(NamedTuple):
    """The part `a g` of a gradient: g `[n c *space]`, a `[n c]`."""

    g: FeatureMap
    a: torch.Tensor


class ScaledGrads(NamedTuple):
    """The gradient g behind the rectifier, the factor a `[n c]` of z's gradient `a g`, and those of `Affine`."""

    g: FeatureMap
    a: torch.Tensor
    affine: AffineGrads


class NormGrads(NamedTuple):
    """The gradients of z, gamma and beta."""

    z: FeatureMap | None
    gamma: Numbers
    beta: Numbers


class Passes(Protocol):
    """The five passes over a map; `excite.ops.tail.torch` says what each does."""

    def moments(self, z: FeatureMap, second: bool, per_sample: bool, basis: Numbers = None) -> Moments:
        """Return mean, variance and projection over space."""

    def affine(
        self, z: FeatureMap, a: torch.Tensor, b: torch.Tensor, shortcut: FeatureMap | None, relu: bool
    ) -> FeatureMap:
        """Return `a z + b + shortcut`, rectified."""

    def grad_sums(self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, mu: torch.Tensor) -> GradSums:
        """Return the gradient behind the rectifier and its sums."""

    def rectified(self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap) -> FeatureMap:
        """Return the gradient behind the rectifier."""

    def grad_input(
        self,
        g: FeatureMap,
        z: FeatureMap,
        a: torch.Tensor,
        q: Numbers,
        p: Numbers,
        mu: Numbers,
        d: Numbers = None,
        basis: Numbers = None,
    ) -> FeatureMap:
        """Return `a g + q (z - mu) + p + d basis`."""


class Kernels:
    """The passes of one module (`torch`, `triton`); what lies between them is done by torch."""

    ceilings: tuple[float, ...] = (math.inf,)  # of the rectifiers that are part of the second pass
    gated = False  # whether `gated.GatedTail` runs on them

    def __init__(self, passes: Passes) -> None:
        self.passes = passes

    def inferred(self, z: FeatureMap, norm: object, means: bool) -> tuple[Numbers, torch.Tensor] | None:
        """Return what a shorter way to the output without gradients needs; None where there is no such way."""

    def attended(
        self,
        z: FeatureMap,
        numbers: torch.Tensor,
        weights: Numbers,
        shortcut: FeatureMap | None,
        ceiling: float | None,
    ) -> FeatureMap:
        """Return the output from what `inferred` gave."""
        raise NotImplementedError

    def standardise(
        self, z: FeatureMap, basis: Numbers, gamma: Numbers, beta: Numbers, settings: Settings
    ) -> Statistics:
        """Return the moments of z, and the description of the normalised map that follows (`moments.normalise`)."""
        moments = Moments(None, None, None)
        if settings.batch or settings.first:
            moments = self.passes.moments(z, settings.batch or settings.second, settings.second, basis)
        return normalise(moments, gamma, beta, basis, settings)

    def grad_standardise(
        self, saved: Saved, carried: Carried | None, grads: NormalisedGrads, settings: Settings
    ) -> NormGrads:
        """Return the gradients of z, gamma and beta; carried: a part of z's gradient that is known already."""
        by = differentiate(saved, grads, settings)
        if carried is None and by.q is None and by.p is None and by.d is None:
            return NormGrads(None, by.gamma, by.beta)
        z = saved.z
        g, a = carried or (z, z.new_zeros(z.shape[:2], dtype=wide_type(z)))
        return NormGrads(self.grad_input(g, z, a, by.q, by.p, by.mu, by.d, saved.basis), by.gamma, by.beta)

    def scaled(self, z: FeatureMap, by: Affine, shortcut: FeatureMap | None, ceiling: float | None) -> FeatureMap:
        """Return `by(z) + shortcut`; ceiling: of the rectifier (`plan.ceiling_of`), or None without one."""
        return self.passes.affine(z, by.factor(z), by.offset(z), shortcut, ceiling is not None)

    def grad_scaled(
        self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, by: Affine, ceiling: float | None
    ) -> ScaledGrads:
        """Return the gradients of `scaled`; out: its output, or None where there was no rectifier."""
        sums = self.passes.grad_sums(grad, out, z, by.mu)
        return ScaledGrads(sums.g, by.factor(z), by.differentiate(sums.total, sums.product, z))

    def rectified(self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap) -> FeatureMap:
        """Return the gradient behind the rectifier (`grad` where `out` is None)."""
        return self.passes.rectified(grad, out, z)

    def grad_input(
        self,
        g: FeatureMap,
        z: FeatureMap,
        a: torch.Tensor,
        q: Numbers = None,
        p: Numbers = None,
        mu: Numbers = None,
        d: Numbers = None,
        basis: Numbers = None,
    ) -> FeatureMap:
        """Return `a g + q (z - mu) + p + d basis`; coefficients `[n c]`, mu `[c]`, basis `[c *space]`, None is zero."""
        return self.passes.grad_input(g, z, a, q, p, mu, d, basis)
