"""What the figures of channel scales show, and that every kind of network can be drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excite.explain import figures
from excite.explain.gates import stage_name
from excite.explain.scales import BINS, SiteScales


def site(name: str, channels: int, classes: int = 0, images: int = 20, stage: int = 1) -> SiteScales:
    generator = torch.Generator().manual_seed(channels)
    mean = torch.rand(channels, generator=generator, dtype=torch.float64)
    per_class = mean + 0.1 * torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    histogram = torch.zeros(BINS, dtype=torch.long)
    histogram[10:40] = 5
    counts = torch.ones(classes, dtype=torch.long)
    std = torch.full((channels,), 0.05, dtype=torch.float64)
    return SiteScales(
        name, stage, 1, images, mean, std, per_class if classes else None, counts if classes else None, histogram
    )


def test_the_channels_that_classes_move_most_are_shown_grouped_by_the_class_that_raises_them() -> None:
    shown = site("layer1.0.attention", 300, classes=4)
    assert shown.per_class is not None
    shown.per_class[2] = float("nan")
    values = figures.deviations(shown, [0, 1, 2, 3], most=50)
    assert values.shape == (4, 50)
    assert np.isnan(values[2]).all()
    known = values[[0, 1, 3]]
    every = (shown.per_class - shown.mean).numpy()[[0, 1, 3]]
    assert known.std(0).min() >= np.sort(every.std(0))[-50]
    raised = known.argmax(0)
    assert (np.diff(raised) >= 0).all()
    for c in range(3):
        assert (np.diff(known[c][raised == c]) <= 0).all()
    assert figures.deviations(shown, [2], most=50).shape == (1, 50)
    assert figures.deviations(site("x", 16, classes=3), [0, 1, 2]).shape == (3, 16)


def test_classes_that_were_seen_are_chosen_spread_out() -> None:
    shown = site("layer1.0.attention", 8, classes=100)
    assert shown.per_class is not None
    shown.per_class[0] = float("nan")
    chosen = figures.choose_classes(shown)
    assert (len(chosen), chosen[0], chosen[-1]) == (figures.CLASSES_SHOWN, 1, 99)
    assert figures.choose_classes(site("x", 8, classes=3)) == [0, 1, 2]


def test_a_band_is_smoothed_without_losing_its_ends() -> None:
    assert figures.smoothed(np.array([1.0, 2.0, 3.0]), 1).tolist() == [1, 2, 3]
    assert figures.smoothed(np.full(10, 0.5), 4) == pytest.approx(np.full(10, 0.5))


@pytest.mark.parametrize(
    ("name", "stage"),
    [("layer3.0.attention", "layer3"), ("stages.2.1.se", "stages.2"), ("blocks.4.0.se", "blocks.4"),
     ("features.12.attention", "stage 7")],
)  # fmt: skip
def test_stages_have_the_names_of_the_network(name: str, stage: str) -> None:
    assert stage_name(name, 7) == stage


@pytest.mark.parametrize("images", [pytest.param(1, marks=pytest.mark.slow), 20])
def test_networks_of_every_width_share_their_axes_and_fit_a_phone(images: int, tmp_path: Path) -> None:
    wide = [site(f"layer{i}.2.attention", 2 ** (i + 7), 10, images, i) for i in range(1, 5)]
    small = [site(f"layer{i}.2.attention", 2 ** (i + 3), 10, images, i) for i in range(1, 4)]
    scales = {"wide $_$": wide, "small": small}
    names = {"wide $_$": [f"class_{i} of a long name" for i in range(10)], "small": [str(i) for i in range(4)]}
    for path in (
        figures.plot_scales(scales, tmp_path / "scales.png"),
        figures.plot_distribution(scales, tmp_path / "weights.png"),
        figures.plot_classes(scales, names, tmp_path / "classes.png"),
        figures.plot_classes(scales, names, tmp_path / "two.png", [3, 1]),
    ):
        with Image.open(path) as picture:
            assert picture.width == pytest.approx(200 * figures.NARROW, abs=2), path
