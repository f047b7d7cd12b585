"""The passes of the fused tail on CUDA: what `kernels_torch` computes, one launch each."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from excite.ops import triton_source as source
from excite.ops.kernels_torch import is_channels_last
from excite.types import FeatureMap

TILE = 2048  # elements of a tile: 16 per thread of four warps
PROGRAMS = 1024  # enough to fill the largest devices when the batch is small


class Plan(NamedTuple):
    """How a map is cut: sizes, strides (position, channel), tile, and rows per split of the summing kernels."""

    samples: int
    channels: int
    positions: int
    strides: tuple[int, int]
    tile: tuple[int, int]
    splits: int
    rows: int
    wide: Any

    @property
    def sum_grid(self) -> tuple[int, int, int]:
        """Programs of a summing kernel."""
        return self.samples, triton.cdiv(self.channels, self.tile[1]), self.splits

    @property
    def map_grid(self) -> tuple[int, int, int]:
        """Programs of an elementwise kernel."""
        return self.samples, triton.cdiv(self.channels, self.tile[1]), triton.cdiv(self.positions, self.tile[0])

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The kernels' C, S, SS, SC."""
        return self.channels, self.positions, *self.strides

    def partial(self, z: FeatureMap) -> torch.Tensor:
        """Return room for partial sums."""
        return torch.empty(self.samples, self.splits, self.channels, device=z.device, dtype=_wide(z))


def _wide(z: FeatureMap) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def plan(z: FeatureMap) -> Plan:
    """Cut the map: along the fastest axis first."""
    n, c, s = z.shape[0], z.shape[1], z[0, 0].numel()
    if is_channels_last(z):
        strides = (c, 1)
        bc = min(triton.next_power_of_2(c), 128)
        bs = min(triton.next_power_of_2(s), TILE // bc)
    else:
        strides = (1, s)
        bs = min(triton.next_power_of_2(s), 1024)
        bc = min(triton.next_power_of_2(c), TILE // bs)
    splits = max(1, min(triton.cdiv(s, bs), triton.cdiv(PROGRAMS, n * triton.cdiv(c, bc))))
    rows = triton.cdiv(triton.cdiv(s, splits), bs) * bs
    wide = tl.float64 if z.dtype == torch.float64 else tl.float32
    return Plan(n, c, s, strides, (bs, bc), triton.cdiv(s, rows), rows, wide)


def _like(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    return x if x.stride() == z.stride() else torch.empty_like(z).copy_(x)


def _small(x: torch.Tensor | None, z: FeatureMap) -> torch.Tensor | None:
    return None if x is None else x.to(_wide(z)).contiguous()


def _launch(kernel: Any, grid: tuple[int, int, int], z: FeatureMap, *args: Any, **options: Any) -> None:
    # Triton launches on the current device, which need not be the map's.
    with torch.cuda.device(z.device) if z.is_cuda else nullcontext():
        kernel[grid](*args, **options)


def _options(cut: Plan) -> dict[str, Any]:
    return {"BS": cut.tile[0], "BC": cut.tile[1], "WIDE": cut.wide, "num_warps": 4}


def moments(
    z: FeatureMap, second: bool, per_sample: bool, basis: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return mean, biased variance and projection over space, `[n c]`; see `kernels_torch.moments`."""
    del per_sample  # the sums are shifted, so the variance is exact for every sample
    cut = plan(z)
    one = cut.partial(z)
    two = cut.partial(z) if second else None
    projected = None if basis is None else cut.partial(z)
    _launch(
        source.moments_kernel,
        cut.sum_grid,
        z,
        z,
        basis,
        one,
        two,
        projected,
        *cut.sizes,
        cut.rows,
        SECOND=second,
        BASIS=basis is not None,
        **_options(cut),
    )
    shift = z.flatten(2).select(2, 0) if z.is_contiguous() else z.movedim(1, -1).flatten(1, -2).select(1, 0)
    off = one.double().sum(1) / cut.positions
    mean = (shift.double() + off).to(_wide(z))
    variance = None if two is None else (two.double().sum(1) / cut.positions - off.square()).clamp_(min=0).to(_wide(z))
    return mean, variance, None if projected is None else projected.double().sum(1).to(_wide(z))


def affine(z: FeatureMap, a: torch.Tensor, b: torch.Tensor, shortcut: FeatureMap | None, relu: bool) -> FeatureMap:
    """Return `a * z + b + shortcut`, rectified if `relu`; a, b `[n c]`."""
    cut, out = plan(z), torch.empty_like(z)
    shortcut = None if shortcut is None else _like(shortcut, z)
    _launch(
        source.affine_kernel, cut.map_grid, z, z, _small(a, z), _small(b, z), shortcut, out, *cut.sizes,
        SHORTCUT=shortcut is not None, RELU=relu, **_options(cut),
    )  # fmt: skip
    return out


def grad_sums(
    grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, mu: torch.Tensor
) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
    """Return g, the gradient behind the rectifier (`grad` where `out` is None), sum(g), sum(g*(z-mu)) `[n c]`."""
    cut, grad = plan(z), _like(grad, z)
    g = grad if out is None else torch.empty_like(z)
    one, product = cut.partial(z), cut.partial(z)
    _launch(
        source.grad_sums_kernel,
        cut.sum_grid,
        z,
        grad,
        out,
        z,
        _small(mu, z),
        g,
        one,
        product,
        *cut.sizes,
        cut.rows,
        RELU=out is not None,
        **_options(cut),
    )
    return g, one.sum(1), product.sum(1)


def rectified(grad: FeatureMap, out: FeatureMap | None, z: FeatureMap) -> FeatureMap:
    """Return g alone."""
    return grad if out is None else torch.ops.aten.threshold_backward(_like(grad, z), out, 0)


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
    cut, dz = plan(z), torch.empty_like(z)
    p = torch.zeros_like(a) if p is None else p
    project = d is not None and basis is not None
    small = (_small(x, z) for x in (a, q, p, mu, d))
    flags = {"QUADRATIC": q is not None and mu is not None, "BASIS": project}
    _launch(
        source.grad_input_kernel,
        cut.map_grid,
        z,
        _like(g, z),
        z,
        *small,
        basis,
        dz,
        *cut.sizes,
        **flags,
        **_options(cut),
    )
    return dz
