"""What the fused tail asks of its kernels: five passes over the map, and the numbers between them."""

import math
from typing import Any

import torch

from excite.ops import standardise
from excite.ops.precision import wide_type
from excite.ops.standardise import Job, Moments, Standard, small
from excite.types import FeatureMap

Numbers = torch.Tensor | None


class Kernels:
    """The passes of one module (`kernels_torch`, `kernels_triton`); what lies between them is done by torch.

    passes: a module with `moments`, `affine`, `grad_sums`, `rectified` and `grad_input`.
    """

    ceilings: tuple[float, ...] = (math.inf,)  # of the rectifiers that are part of the second pass

    def __init__(self, passes: Any) -> None:
        self.moments, self.affine, self.grad_sums = passes.moments, passes.affine, passes.grad_sums
        self.rectified, self.grad_input = passes.rectified, passes.grad_input

    def standardise(
        self, z: FeatureMap, basis: Numbers, gamma: Numbers, beta: Numbers, job: Job
    ) -> tuple[Moments, Standard]:
        """Return the moments of z, and the description of the normalised map that follows (`standardise.standard`)."""
        found = Moments(None, None, None)
        if job.batch or job.first:
            found = Moments(*self.moments(z, job.batch or job.second, job.second, basis))
        return found, standardise.standard(found, gamma, beta, basis, job)

    def grad_standardise(
        self,
        ends: tuple[FeatureMap | None, torch.Tensor | None],
        z: FeatureMap,
        basis: Numbers,
        parameters: tuple[Numbers, Numbers],
        moments: Moments,
        made: Standard,
        grads: list[Numbers],
        job: Job,
    ) -> tuple[FeatureMap | None, Numbers, Numbers]:
        """Return the gradients of z, gamma and beta.

        ends: the gradient g `[n c *space]` and a `[n c]` of a part `a g` of z's, or None; parameters: gamma, beta;
        grads: of scale, bias, mu and of the three descriptions (`standardise.differentiate`).
        """
        found = standardise.differentiate(moments, made, *parameters, basis, grads, job)
        g, a = ends
        if g is None and found.q is None and found.p is None and found.d is None:
            return None, found.gamma, found.beta
        if g is None or a is None:
            g, a = z, z.new_zeros(z.shape[:2], dtype=wide_type(z))
        dz: FeatureMap = self.grad_input(g, z, a, found.q, found.p, found.mu, found.d, basis)
        return dz, found.gamma, found.beta

    def scaled(
        self,
        z: FeatureMap,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mu: torch.Tensor,
        weights: Numbers,
        shortcut: FeatureMap | None,
        ceiling: float | None,
    ) -> FeatureMap:
        """Return `w (scale (z - mu) + bias) + shortcut`; w `[n c]` or None, scale, bias, mu `[c]`.

        ceiling: of the rectifier (`eligible.ceiling_of`), or None without one.
        """
        a, b = (product(small(x, z), weights, z) for x in (scale, bias - mu * scale))
        out: FeatureMap = self.affine(z, a, b, shortcut, ceiling is not None)
        return out

    def grad_scaled(
        self,
        grad: FeatureMap,
        out: FeatureMap | None,
        z: FeatureMap,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mu: torch.Tensor,
        weights: Numbers,
        ceiling: float | None,
    ) -> tuple[FeatureMap, torch.Tensor, list[Numbers]]:
        """Return g, the gradient behind the rectifier (`grad` where `out` is None), a, and of scale, bias, mu, w."""
        g, sum_g, sum_gz = self.grad_sums(grad, out, z, mu)
        return g, product(small(scale, z), weights, z), share(sum_g, sum_gz, scale, bias, weights, z)


def product(x: torch.Tensor, weights: Numbers, z: FeatureMap) -> torch.Tensor:
    """Return `weights * x` `[n c]` of numbers x `[c]` in the working type of z; no weights are ones."""
    return x.expand(z.shape[:2]) if weights is None else small(weights, z) * x


def share(
    sum_g: torch.Tensor,
    sum_gz: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    weights: Numbers,
    z: FeatureMap,
) -> list[Numbers]:
    """Return the gradients of scale, bias, mu `[c]` and weights `[n c]` from the sums of g and g (z - mu)."""
    w = 1.0 if weights is None else small(weights, z)
    for_bias = (sum_g * w).sum(0).to(bias.dtype)
    for_scale = (sum_gz * w).sum(0).to(scale.dtype)
    for_weights = None
    if weights is not None:
        for_weights = (sum_gz * small(scale, z) + sum_g * small(bias, z)).to(weights.dtype)
    return [for_scale, for_bias, -for_bias * scale, for_weights]
