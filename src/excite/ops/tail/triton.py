# mypy: disable-error-code="no-untyped-def"
# Triton gives the arguments of its kernels types of its own.
"""The passes of the fused tail on CUDA: what `excite.ops.tail.torch` computes, one launch each.

One source for both layouts: a tile is [BS positions, BC channels] of one sample. NHWC maps have strides (position C,
channel 1), NCHW maps (1, S); Triton specialises on the stride that is 1. Whatever is loaded is widened at once. Partial
sums `[n splits c]` are added up outside, in a fixed order: results repeat bit by bit.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from excite.ops.tail.kernels import GradSums
from excite.ops.tail.moments import Moments
from excite.ops.tail.torch import is_channels_last
from excite.types import FeatureMap

# Any: a kernel of Triton is a function of its language, not of Python.

TILE = 2048  # elements of a tile: 16 per thread of four warps
PROGRAMS = 1024  # enough to fill the largest devices when the batch is small


@triton.jit
def tile(C, S, BC: tl.constexpr):
    """Return the sample, its first element, the tile's channels and their mask."""
    n = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * BC + tl.arange(0, BC)
    return n, n * C * S, channels, channels < C


@triton.jit
def moments_kernel(
    z_ptr, basis_ptr, s1_ptr, s2_ptr, sp_ptr, C, S, SS, SC, ROWS,
    SECOND: tl.constexpr, BASIS: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sum z - k, (z - k)^2 and z * basis, where k is the channel's first value."""
    n, start, channels, inside = tile(C, S, BC)
    split = tl.program_id(2)
    k = tl.load(z_ptr + start + channels * SC, mask=inside, other=0.0).to(WIDE)
    one = tl.zeros([BS, BC], dtype=WIDE)
    two = tl.zeros([BS, BC], dtype=WIDE)
    projected = tl.zeros([BS, BC], dtype=WIDE)
    for first in range(0, ROWS, BS):
        position = split * ROWS + first + tl.arange(0, BS)
        mask = (position < S)[:, None] & inside[None, :]
        place = position[:, None] * SS + channels[None, :] * SC
        z = tl.load(z_ptr + start + place, mask=mask, other=0.0).to(WIDE)
        shifted = tl.where(mask, z - k[None, :], 0.0)
        one += shifted
        if SECOND:
            two += shifted * shifted
        if BASIS:
            projected += z * tl.load(basis_ptr + place, mask=mask, other=0.0).to(WIDE)
    at = (n * tl.num_programs(2) + split) * C + channels
    tl.store(s1_ptr + at, tl.sum(one, axis=0), mask=inside)
    if SECOND:
        tl.store(s2_ptr + at, tl.sum(two, axis=0), mask=inside)
    if BASIS:
        tl.store(sp_ptr + at, tl.sum(projected, axis=0), mask=inside)


@triton.jit
def affine_kernel(
    z_ptr, a_ptr, b_ptr, shortcut_ptr, out_ptr, C, S, SS, SC,
    SHORTCUT: tl.constexpr, RELU: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write a z + b + shortcut, rectified."""
    n, start, channels, inside = tile(C, S, BC)
    position = tl.program_id(2) * BS + tl.arange(0, BS)
    mask = (position < S)[:, None] & inside[None, :]
    place = start + position[:, None] * SS + channels[None, :] * SC
    a = tl.load(a_ptr + n * C + channels, mask=inside, other=0.0)
    b = tl.load(b_ptr + n * C + channels, mask=inside, other=0.0)
    y = tl.load(z_ptr + place, mask=mask, other=0.0).to(WIDE) * a[None, :] + b[None, :]
    if SHORTCUT:
        y += tl.load(shortcut_ptr + place, mask=mask, other=0.0).to(WIDE)
    if RELU:
        y = tl.where(y < 0.0, 0.0, y)  # not maximum: NaN must stay
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def grad_sums_kernel(
    grad_ptr, out_ptr, z_ptr, centre_ptr, g_ptr, s1_ptr, s2_ptr, C, S, SS, SC, ROWS,
    RELU: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write g, the gradient behind the rectifier; sum g and g * (z - centre)."""
    n, start, channels, inside = tile(C, S, BC)
    split = tl.program_id(2)
    centre = tl.load(centre_ptr + channels, mask=inside, other=0.0)
    one = tl.zeros([BS, BC], dtype=WIDE)
    product = tl.zeros([BS, BC], dtype=WIDE)
    for first in range(0, ROWS, BS):
        position = split * ROWS + first + tl.arange(0, BS)
        mask = (position < S)[:, None] & inside[None, :]
        place = start + position[:, None] * SS + channels[None, :] * SC
        g = tl.load(grad_ptr + place, mask=mask, other=0.0).to(WIDE)
        if RELU:
            out = tl.load(out_ptr + place, mask=mask, other=0.0).to(WIDE)
            g = tl.where(out <= 0.0, 0.0, g)
            tl.store(g_ptr + place, g.to(g_ptr.dtype.element_ty), mask=mask)
        z = tl.load(z_ptr + place, mask=mask, other=0.0).to(WIDE)
        one += g
        product += g * (z - centre[None, :])
    at = (n * tl.num_programs(2) + split) * C + channels
    tl.store(s1_ptr + at, tl.sum(one, axis=0), mask=inside)
    tl.store(s2_ptr + at, tl.sum(product, axis=0), mask=inside)


@triton.jit
def grad_input_kernel(
    g_ptr, z_ptr, a_ptr, q_ptr, p_ptr, centre_ptr, d_ptr, basis_ptr, dz_ptr, C, S, SS, SC,
    QUADRATIC: tl.constexpr, BASIS: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write a g + q (z - centre) + p + d basis."""
    n, start, channels, inside = tile(C, S, BC)
    position = tl.program_id(2) * BS + tl.arange(0, BS)
    mask = (position < S)[:, None] & inside[None, :]
    local = position[:, None] * SS + channels[None, :] * SC
    a = tl.load(a_ptr + n * C + channels, mask=inside, other=0.0)
    p = tl.load(p_ptr + n * C + channels, mask=inside, other=0.0)
    dz = tl.load(g_ptr + start + local, mask=mask, other=0.0).to(WIDE) * a[None, :] + p[None, :]
    if QUADRATIC:
        q = tl.load(q_ptr + n * C + channels, mask=inside, other=0.0)
        centre = tl.load(centre_ptr + channels, mask=inside, other=0.0)
        dz += q[None, :] * (tl.load(z_ptr + start + local, mask=mask, other=0.0).to(WIDE) - centre[None, :])
    if BASIS:
        d = tl.load(d_ptr + n * C + channels, mask=inside, other=0.0)
        dz += d[None, :] * tl.load(basis_ptr + local, mask=mask, other=0.0).to(WIDE)
    tl.store(dz_ptr + start + local, dz.to(dz_ptr.dtype.element_ty), mask=mask)


class Cut(NamedTuple):
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


def cut_of(z: FeatureMap) -> Cut:
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
    return Cut(n, c, s, strides, (bs, bc), triton.cdiv(s, rows), rows, wide)


def _like(x: torch.Tensor, z: FeatureMap) -> torch.Tensor:
    return x if x.stride() == z.stride() else torch.empty_like(z).copy_(x)


def _small(x: torch.Tensor | None, z: FeatureMap) -> torch.Tensor | None:
    return None if x is None else x.to(_wide(z)).contiguous()


def _launch(kernel: Any, grid: tuple[int, int, int], z: FeatureMap, *args: Any, **options: Any) -> None:
    # Triton launches on the current device, which need not be the map's.
    with torch.cuda.device(z.device) if z.is_cuda else nullcontext():
        kernel[grid](*args, **options)


def _options(cut: Cut) -> dict[str, Any]:
    return {"BS": cut.tile[0], "BC": cut.tile[1], "WIDE": cut.wide, "num_warps": 4}


def moments(z: FeatureMap, second: bool, per_sample: bool, basis: torch.Tensor | None = None) -> Moments:
    """Return mean, biased variance and projection over space, `[n c]`; see `torch.moments`."""
    del per_sample  # the sums are shifted, so the variance is exact for every sample
    cut = cut_of(z)
    one = cut.partial(z)
    two = cut.partial(z) if second else None
    projected = None if basis is None else cut.partial(z)
    _launch(
        moments_kernel,
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
    return Moments(mean, variance, None if projected is None else projected.double().sum(1).to(_wide(z)))


def affine(z: FeatureMap, a: torch.Tensor, b: torch.Tensor, shortcut: FeatureMap | None, relu: bool) -> FeatureMap:
    """Return `a * z + b + shortcut`, rectified if `relu`; a, b `[n c]`."""
    cut, out = cut_of(z), torch.empty_like(z)
    shortcut = None if shortcut is None else _like(shortcut, z)
    _launch(
        affine_kernel, cut.map_grid, z, z, _small(a, z), _small(b, z), shortcut, out, *cut.sizes,
        SHORTCUT=shortcut is not None, RELU=relu, **_options(cut),
    )  # fmt: skip
    return out


def grad_sums(grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, mu: torch.Tensor) -> GradSums:
    """Return the gradient g behind the rectifier (`grad` where `out` is None) and its sums; mu: `[c]`."""
    cut, grad = cut_of(z), _like(grad, z)
    g = grad if out is None else torch.empty_like(z)
    one, product = cut.partial(z), cut.partial(z)
    _launch(
        grad_sums_kernel,
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
    return GradSums(g, one.sum(1), product.sum(1))


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
    cut, dz = cut_of(z), torch.empty_like(z)
    p = torch.zeros_like(a) if p is None else p
    project = d is not None and basis is not None
    small = (_small(x, z) for x in (a, q, p, mu, d))
    flags = {"QUADRATIC": q is not None and mu is not None, "BASIS": project}
    _launch(
        grad_input_kernel,
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
