"""Squeezes from statistics, and the cosine transform at any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import excite
from excite.errors import UsageError
from excite.methods.fcanet import TABLES, frequency_pairs
from excite.ops import residual_tail, use, why_not
from excite.spectral import Spectral
from excite.squeezes import L1, L2, Mean, MeanStd, Pools


@pytest.mark.parametrize("squeeze", [Mean(), MeanStd(), L2()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("space", [(1,), (7, 5), (3, 4, 2), (1, 1)])
def test_statistics_give_the_same_descriptor(squeeze: torch.nn.Module, space: tuple[int, ...]) -> None:
    x = 3 + torch.randn(2, 6, *space, dtype=torch.float64)
    flat = x.flatten(2)
    variance, mean = torch.var_mean(flat, dim=2, correction=0)
    descriptor = squeeze.from_statistics(mean, variance, flat.shape[2])
    torch.testing.assert_close(descriptor, squeeze(x), rtol=1e-9, atol=1e-9)
    assert squeeze.needs_second_moment == (not isinstance(squeeze, Mean))


@pytest.mark.parametrize("space", [(2,), (2, 2), (3, 5)])
def test_deviation_is_unbiased(space: tuple[int, ...]) -> None:
    """As torch.std has it, from the map and from its statistics; a norm behind it would hide a common factor."""
    x = torch.randn(2, 6, *space, dtype=torch.float64)
    flat = x.flatten(2)
    expected = torch.stack((flat.mean(2), (flat.var(2, correction=1) + 1e-3).sqrt()), dim=-1)
    squeeze = MeanStd(1e-3)
    torch.testing.assert_close(squeeze(x), expected)
    variance, mean = torch.var_mean(flat, dim=2, correction=0)
    torch.testing.assert_close(squeeze.from_statistics(mean, variance, flat.shape[2]), expected)


def test_pools_are_what_they_are_called() -> None:
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    flat = x.flatten(2)
    pools = {"avg": flat.mean(2), "max": flat.max(2)[0], "lp": flat.norm(2, 2), "lse": flat.exp().sum(2).log()}
    torch.testing.assert_close(Pools(tuple(pools))(x), torch.stack(tuple(pools.values()), dim=-1))
    torch.testing.assert_close(Pools(("avg", "max"), average=True)(x), ((pools["avg"] + pools["max"]) / 2)[..., None])
    torch.testing.assert_close(Mean()(x), pools["avg"][..., None])
    torch.testing.assert_close(L1()(x), flat.abs().sum(2)[..., None])
    torch.testing.assert_close(L2(0.5)(x), (flat.square().sum(2) + 0.5).sqrt()[..., None])


@pytest.mark.parametrize("size", [None, (7, 5)])
def test_a_projection_gives_the_same_descriptor(size: tuple[int, int] | None) -> None:
    x = torch.randn(2, 8, 7, 5, dtype=torch.float64)
    dct = Spectral(frequency_pairs("top4"), size).double()
    sums = (dct.projection(tuple(x.shape[1:]), x.dtype) * x).sum((2, 3))
    torch.testing.assert_close(dct.from_projection(sums), dct(x))
    assert dct.projects((7, 5))
    assert dct.projects((5, 7)) == (size is None)
    assert not dct.projects((7,))


@pytest.mark.parametrize("method", ["se", "srm", "gct", "fca"])
def test_the_fused_tail_equals_the_modules(method: str) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16).double().train()
    attention = excite.create_attention(method, 16).double().eval()
    for p in attention.parameters():
        nn.init.normal_(p)
    z, shortcut = (torch.randn(3, 16, 6, 5, dtype=torch.float64) for _ in range(2))
    act = nn.ReLU()
    assert why_not(z, norm, attention, shortcut) is None
    with use("reference"):
        expected = residual_tail(z, norm, attention, shortcut, act)
    with use("fused"):
        ours = residual_tail(z, norm, attention, shortcut, act)
    torch.testing.assert_close(ours, expected)


def test_one_position_has_no_deviation() -> None:
    assert torch.isfinite(MeanStd()(torch.randn(2, 3, 1, 1))).all()


@pytest.mark.parametrize("values", [(1000.0, 1002.0), (-3000.0, 3000.0)])
@pytest.mark.parametrize("squeeze", [MeanStd(), L1(), L2()], ids=lambda s: type(s).__name__)
def test_large_maps_of_half_precision(squeeze: nn.Module, values: tuple[float, float]) -> None:
    """Sums of squares, and sums of many positions, are beyond float16."""
    x = torch.tensor(values).repeat(64).half().expand(1, 1, 128)
    torch.testing.assert_close(squeeze(x).double(), squeeze(x.double()), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("size", [7, 14, 28, 56, 5, 13, 20])
def test_the_generated_basis_is_the_orthonormal_cosine_transform(size: int) -> None:
    pairs = frequency_pairs("low32")
    x = torch.randn(1, 32, size, size, dtype=torch.float64)
    n = torch.arange(size, dtype=torch.float64)
    for dct in (Spectral(pairs, None).double(), Spectral(pairs, (size, size)).double()):
        out = dct(x)[0, :, 0]
        for i, (u, v) in enumerate(pairs):
            step = size // 7 if size % 7 == 0 or (dct.size and size > 7) else size / 7
            rows, columns = int(u * step + 0.5), int(v * step + 0.5)
            expected = (
                x[0, i]
                * torch.cos(torch.pi * rows * (n[:, None] + 0.5) / size)
                * torch.cos(torch.pi * columns * (n[None, :] + 0.5) / size)
            ).sum()
            expected = expected * (2 ** (0.5 * ((rows > 0) + (columns > 0)))) / size
            assert abs(float(out[i] - expected)) < 1e-10


def test_another_size_is_resampled_and_the_constant_is_exact_after_a_cast() -> None:
    fixed = Spectral(frequency_pairs("top4"), (7, 7))
    x = torch.randn(2, 8, 12, 9)
    torch.testing.assert_close(fixed(x), fixed(F.adaptive_avg_pool2d(x, (7, 7))))
    assert not fixed.state_dict()
    before = fixed.basis.clone()
    fixed.half().double()
    torch.testing.assert_close(fixed.basis.float(), before, rtol=0, atol=0)


def test_the_constant_survives_a_meta_device() -> None:
    with torch.device("meta"):
        fixed = Spectral(frequency_pairs("top4"), (7, 7))
    fixed = fixed.to_empty(device="cpu")
    torch.testing.assert_close(fixed.basis, Spectral(frequency_pairs("top4"), (7, 7)).basis)


def test_frequency_zero_is_the_root_of_the_area_times_the_mean() -> None:
    x = torch.randn(2, 4, 6, 9)
    torch.testing.assert_close(Spectral([(0, 0)], None)(x), Mean()(x) * 54**0.5)


def test_tables_hold_32_different_pairs() -> None:
    for kind in TABLES:
        pairs = frequency_pairs(f"{kind}32")
        assert len(set(pairs)) == 32
        assert all(0 <= u < 7 and 0 <= v < 7 for u, v in pairs)


@pytest.mark.parametrize("wrong", ["top", "top0", "top33", "mid4", "16", ""])
def test_wrong_frequencies(wrong: str) -> None:
    with pytest.raises(UsageError, match="top16"):
        frequency_pairs(wrong)
