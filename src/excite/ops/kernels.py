"""What the fused tail asks of its kernels: five passes over the map, and the numbers between them."""

import math
from typing import Any, NamedTuple

import torch

from excite.ops import standardise
from excite.ops.precision import wide_type
from excite.ops.standardise import Job, Moments, Standard, small
from excite.types import FeatureMap

Numbers = torch.Tensor | None


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

    def share(self, sum_g: torch.Tensor, sum_gz: torch.Tensor, z: FeatureMap) -> list[Numbers]:
        """Return the gradients of scale, bias, mu and w from the sums of g and of g (z - mu)."""
        w = 1.0 if self.weights is None else small(self.weights, z)
        for_bias = (sum_g * w).sum(0).to(self.bias.dtype)
        for_scale = (sum_gz * w).sum(0).to(self.scale.dtype)
        for_weights = None
        if self.weights is not None:
            found = sum_gz * small(self.scale, z) + sum_g * small(self.bias, z)
            for_weights = found.to(self.weights.dtype)
        return [for_scale, for_bias, -for_bias * self.scale, for_weights]


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

    def scaled(self, z: FeatureMap, by: Affine, shortcut: FeatureMap | None, ceiling: float | None) -> FeatureMap:
        """Return `by(z) + shortcut`; ceiling: of the rectifier (`eligible.ceiling_of`), or None without one."""
        out: FeatureMap = self.affine(z, by.factor(z), by.offset(z), shortcut, ceiling is not None)
        return out

    def grad_scaled(
        self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, by: Affine, ceiling: float | None
    ) -> tuple[FeatureMap, torch.Tensor, list[Numbers]]:
        """Return g, the gradient behind the rectifier (`grad` where `out` is None), a, and of scale, bias, mu, w."""
        g, sum_g, sum_gz = self.grad_sums(grad, out, z, by.mu)
        return g, by.factor(z), by.share(sum_g, sum_gz, z)
