"""The fifteen corruptions: growing with severity, reproducible, in range, refused where they cannot work."""

from itertools import pairwise

import pytest
import torch
from kornia.metrics import ssim

from excite.errors import UsageError
from excite.robustness import CORRUPTIONS, corrupt
from excite.robustness.blur import gaussian, streak
from excite.robustness.tables import ALEXNET, FAMILIES, LARGE, SMALL, table_for
from excite.robustness.weather import ice, plasma


def scene(side: int, index: int = 0) -> torch.Tensor:
    """Return an image `[3 side side]` with edges, a texture and a gradient, as photographs have."""
    generator = torch.Generator().manual_seed(index)
    line = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    colours = torch.rand(3, 3, generator=generator)
    ground = colours[0, :, None, None] * (0.4 + 0.5 * y)
    disk = ((x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.07).float()
    bars = ((x * 9).floor() % 2) * (y > 0.7)
    image = ground * (1 - disk) + colours[1, :, None, None] * disk + 0.3 * colours[2, :, None, None] * bars
    texture = gaussian(torch.rand(3, side, side, generator=generator) - 0.5, side / 64)
    return (image + 0.15 * texture).clamp(0.02, 0.98)


def unlikeness(side: int, family: str, severity: int, count: int) -> tuple[float, float]:
    """Return 1 - SSIM and the mean absolute difference, over `count` images."""
    clean = torch.stack([scene(side, i) for i in range(count)])
    changed = torch.stack([corrupt(x, family, severity, index=i) for i, x in enumerate(clean)])
    return 1 - float(ssim(clean, changed, 7 if side < 100 else 11).mean()), float((clean - changed).abs().mean())


# The published motion blur at 32 pixels is level from 3 to 4 (only its radius grows, beyond where the weights vanish).
def grows(values: list[float], slack: float = 0.002) -> bool:
    return all(b >= a - slack for a, b in pairwise(values)) and values[-1] > 1.15 * values[0]


def measure(family: str) -> int:
    """Likeness for all but snow: its third severity has larger flakes, which change more but leave more structure."""
    return 1 if family == "snow" else 0


# The published severities of these do not grow by either measure: some change three numbers in turn.
LEVEL = {32: {"elastic_transform", "glass_blur", "frost"}, 224: {"elastic_transform", "glass_blur", "snow"}}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in LEVEL[32]])
def test_grows_with_severity_at_32_pixels(family: str) -> None:
    values = [unlikeness(32, family, s, 12)[measure(family)] for s in range(1, 6)]
    assert values[0] > 0.0005
    assert grows(values), values


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in LEVEL[224]])
def test_grows_with_severity_at_224_pixels(family: str) -> None:
    values = [unlikeness(224, family, s, 2)[measure(family)] for s in range(1, 6)]
    assert grows(values), values


@pytest.mark.parametrize("family", FAMILIES)
def test_reproducible_in_range_and_8_bit(family: str) -> None:
    x = scene(32)
    kept = x.clone()
    y = corrupt(x, family, 3, seed=5, index=2)
    assert torch.equal(x, kept)
    assert y.shape == x.shape
    assert torch.equal(y, corrupt(x, family, 3, seed=5, index=2))
    assert 0 <= float(y.min()) <= float(y.max()) <= 1
    torch.testing.assert_close(y * 255, (y * 255).round(), rtol=0, atol=1e-3)
    assert bool(y.isfinite().all())


RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur"} | {
    "snow",
    "frost",
    "fog",
    "elastic_transform",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_chance_follows_seed_and_index(family: str) -> None:
    x = scene(32)
    one, other = corrupt(x, family, 5, seed=0, index=0), corrupt(x, family, 5, seed=0, index=1)
    assert torch.equal(one, other) == (family not in RANDOM)
    assert torch.equal(one, corrupt(x, family, 5, seed=1, index=0)) == (family not in RANDOM)


@pytest.mark.parametrize("family", FAMILIES)
def test_grey_and_oblong_images(family: str) -> None:
    assert corrupt(scene(28)[:1], family, 4).shape == (1, 28, 28)
    assert corrupt(scene(48)[:, :32], family, 4).shape == (3, 32, 48)
    assert bool(corrupt(torch.zeros(3, 16, 16), family, 5).isfinite().all())


def test_strengths_are_scaled_with_the_side() -> None:
    assert table_for(32) is SMALL
    assert table_for(64) is SMALL
    assert table_for(96) is LARGE
    assert set(SMALL.constants) == set(LARGE.constants) == set(CORRUPTIONS) == set(ALEXNET)
    for table in (SMALL, LARGE):
        assert all(len(v) == 5 for v in table.constants.values())
    # A blur of a constant share of the image: twice the side, twice the radius, about the same likeness.
    at_32, at_64 = (unlikeness(side, "motion_blur", 4, 4)[1] for side in (32, 64))
    assert 0.6 < at_64 / at_32 < 1.7


def test_zoom_factors_are_those_published() -> None:
    zooms = LARGE.constants["zoom_blur"]
    assert [len(z) for z in zooms] == [12, 16, 11, 13, 11]
    assert max(zooms[4]) == pytest.approx(1.30)
    assert [len(z) for z in SMALL.constants["zoom_blur"]] == [7, 12, 16, 21, 26]


def test_noise_has_the_stated_strength() -> None:
    grey = torch.full((3, 64, 64), 0.5)
    assert float((corrupt(grey, "gaussian_noise", 3) - 0.5).std()) == pytest.approx(0.08, rel=0.05)
    changed = (corrupt(grey, "impulse_noise", 5) - 0.5).abs() > 0.4
    assert float(changed.float().mean()) == pytest.approx(0.07, rel=0.15)
    shot = corrupt(grey, "shot_noise", 5)  # 50 photons: variance of the share is mean / photons
    assert float(shot.var()) == pytest.approx(0.5 / 50, rel=0.1)


def test_brightness_keeps_hue_and_adds_to_the_value() -> None:
    x = torch.tensor([0.2, 0.4, 0.1])[:, None, None].expand(3, 8, 8)
    y = corrupt(x, "brightness", 2)
    torch.testing.assert_close(y[:, 0, 0], torch.tensor([0.25, 0.5, 0.125]), rtol=0, atol=1 / 255)


def test_streak_keeps_the_mean_of_a_constant() -> None:
    constant = torch.full((1, 20, 20), 0.3)
    torch.testing.assert_close(streak(constant, 6, 2, 0.7), constant)


def test_textures_fill_their_range() -> None:
    cloud = plasma(50, 2.0, torch.Generator().manual_seed(0))
    assert 0 <= float(cloud.min()) < 0.1
    assert 0.9 < float(cloud.max()) <= 1  # a part of a map of 64
    frozen = ice(64, 1.2, torch.Generator().manual_seed(0))
    assert 0.4 < float(frozen.mean()) < 0.9
    assert float(frozen.std()) > 0.05
    assert float(frozen[2].mean()) > float(frozen[0].mean())


def test_bad_names_and_severities() -> None:
    x = scene(32)
    with pytest.raises(UsageError, match="gaussian_noise"):
        corrupt(x, "gausian_noise", 1)
    for severity in (0, 6):
        with pytest.raises(UsageError, match="1 to 5"):
            corrupt(x, "fog", severity)
    for shape in ((3, 2, 2), (2, 32, 32), (1, 3, 32, 32)):
        with pytest.raises(UsageError, match="got"):
            corrupt(torch.zeros(shape), "fog", 1)
