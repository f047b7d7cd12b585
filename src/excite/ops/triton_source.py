# mypy: disable-error-code="no-untyped-def"
"""The four passes as Triton kernels. One source for both layouts: a tile is [BS positions, BC channels] of one sample.

NHWC maps have strides (position C, channel 1), NCHW maps (1, S); Triton specialises on the stride that is 1. Whatever
is loaded is widened at once. Partial sums `[n splits c]` are added up outside, in a fixed order: results repeat bit by
bit.
"""

import triton
import triton.language as tl


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
