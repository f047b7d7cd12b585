"""Scores by hand, published layouts, probes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excite.errors import ExciteError, UsageError
from excite.robustness.probes import PROBES, probe
from excite.robustness.published import open_published
from excite.robustness.scores import Baseline, alexnet, score
from excite.robustness.tables import ALEXNET, FAMILIES

ERRORS = {"fog": {1: 0.2, 3: 0.4}, "snow": {1: 0.5, 3: 0.7}}


def test_without_a_baseline_it_is_the_plain_mean_and_says_so() -> None:
    found = score(0.1, ERRORS)
    assert found.by_family == pytest.approx({"fog": 0.3, "snow": 0.6})
    assert found.mean_error == pytest.approx(0.45)
    assert found.mce is None
    assert found.normalisation == "un-normalised, 2 of 15 families"


def test_against_a_baseline() -> None:
    found = score(0.1, ERRORS, Baseline("plain", {"fog": 0.6, "snow": 0.8}, clean=0.2))
    assert found.mce == pytest.approx((0.3 / 0.6 + 0.6 / 0.8) / 2)
    assert found.relative_mce == pytest.approx((0.2 / 0.4 + 0.5 / 0.6) / 2)
    assert found.mean_error == pytest.approx(0.45)
    assert "divided by plain" in found.normalisation


def test_relative_error_is_left_out_where_the_baseline_does_not_suffer() -> None:
    assert score(0.1, ERRORS, Baseline("plain", {"fog": 0.2, "snow": 0.8}, clean=0.2)).relative_mce is None


def test_all_families_are_not_called_a_part() -> None:
    assert score(0.1, {f: {1: 0.5} for f in FAMILIES}).normalisation == "un-normalised"


def test_alexnet_divided_by_itself_is_one() -> None:
    baseline = alexnet(list(FAMILIES), (1, 2, 3, 4, 5), 1000)
    found = score(0.4, {f: dict.fromkeys(range(1, 6), ALEXNET[f]) for f in FAMILIES}, baseline)
    assert found.mce == pytest.approx(1)
    assert "AlexNet" in found.normalisation


def test_alexnet_where_it_does_not_apply() -> None:
    with pytest.raises(UsageError, match="1000 classes"):
        alexnet(["fog"], (1, 2, 3, 4, 5), 10)
    with pytest.raises(UsageError, match="--severities"):
        alexnet(["fog"], (1, 2), 1000)


def test_baseline_that_cannot_divide() -> None:
    for errors in ({"fog": 0.0, "snow": 0.5}, {"snow": 0.5}):
        with pytest.raises(UsageError, match="'fog'"):
            score(0.1, ERRORS, Baseline("perfect", errors))


def arrays(folder: Path, n: int = 4) -> None:
    values = np.zeros((5 * n, 32, 32, 3), np.uint8)
    values[:, 0, 0, 0] = np.arange(5 * n)
    np.save(folder / "fog.npy", values)
    np.save(folder / "labels.npy", np.tile(np.arange(n), 5).astype(np.uint8))


def test_cifar_c_arrays(tmp_path: Path) -> None:
    arrays(tmp_path)
    found = open_published(tmp_path)
    assert (found.layout, found.families) == ("npy", ("fog",))
    pairs = list(found.images("fog", 3, 3, ["a", "b", "c", "d"]))
    assert [label for _, label in pairs] == [0, 1, 2]
    assert [int(image[0, 0, 0]) for image, _ in pairs] == [8, 9, 10]
    assert pairs[0][0].shape == (3, 32, 32)


def test_cifar_c_labels_may_be_given_once(tmp_path: Path) -> None:
    arrays(tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(4).astype(np.uint8))
    assert [label for _, label in open_published(tmp_path).images("fog", 5, 9, ["a"] * 4)] == [0, 1, 2, 3]


def folders(root: Path) -> None:
    for name, red in (("n01", 10), ("n02", 20)):
        place = root / "snow" / "2" / name
        place.mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 40), (red + i, 0, 0)).save(place / f"{i}.png")


def test_imagenet_c_folders_are_spread_over_classes(tmp_path: Path) -> None:
    folders(tmp_path)
    found = open_published(tmp_path)
    assert (found.layout, found.families) == ("folders", ("snow",))
    pairs = list(found.images("snow", 2, 4, ["n02", "n01"]))
    assert [(image.getpixel((0, 0))[0], label) for image, label in pairs] == [(10, 1), (20, 0), (11, 1), (21, 0)]
    by_order = list(found.images("snow", 2, 2, ["tench", "goldfish"]))
    assert [label for _, label in by_order] == [0, 1]


def test_published_sets_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        open_published(tmp_path / "gone")
    with pytest.raises(UsageError, match="no corrupted set"):
        open_published(tmp_path)
    np.save(tmp_path / "fog.npy", np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(UsageError, match=r"labels\.npy"):
        open_published(tmp_path)


def test_published_sets_that_do_not_fit(tmp_path: Path) -> None:
    arrays(tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(7))
    with pytest.raises(ExciteError, match="7 labels"):
        list(open_published(tmp_path).images("fog", 1, 1, ["a"]))
    np.save(tmp_path / "fog.npy", np.zeros((5, 32, 32), np.float32))
    with pytest.raises(ExciteError, match="float32"):
        list(open_published(tmp_path).images("fog", 1, 1, ["a"]))
    (tmp_path / "fog.npy").write_bytes(b"no array")
    with pytest.raises(ExciteError, match=r"fog\.npy"):
        list(open_published(tmp_path).images("fog", 1, 1, ["a"]))


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    folders(tmp_path)
    found = open_published(tmp_path)
    with pytest.raises(ExciteError, match="missing"):
        list(found.images("snow", 1, 1, ["n01", "n02"]))
    with pytest.raises(ExciteError, match="2 class folders"):
        list(found.images("snow", 2, 1, ["a", "b", "c"]))
    (tmp_path / "snow" / "2" / "n01" / "0.png").write_text("no image")
    with pytest.raises(ExciteError, match=r"0\.png"):
        list(found.images("snow", 2, 1, ["n01", "n02"]))


@pytest.mark.parametrize("name", list(PROBES))
def test_probes_start_at_nothing_and_are_reproducible(name: str) -> None:
    x = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    strengths = PROBES[name].strengths
    assert torch.equal(probe(x, name, strengths[0]), x)
    last = probe(x, name, strengths[-1], index=3)
    assert not torch.equal(last, x)
    assert torch.equal(last, probe(x, name, strengths[-1], index=3))


def test_occlusion_covers_the_stated_square() -> None:
    covered = probe(torch.ones(3, 40, 40), "occlusion", 0.5) == 0.5
    assert int(covered.sum()) == 3 * 20 * 20


def test_shuffling_keeps_the_pixels_and_the_remainder() -> None:
    x = torch.arange(3 * 32 * 32).float().reshape(3, 32, 32)
    y = probe(x, "patch_shuffle", 3)
    assert torch.equal(y.flatten().sort().values, x.flatten())
    assert torch.equal(y[:, 30:], x[:, 30:])
    assert not torch.equal(y, x)


def test_unknown_probe_and_too_many_patches() -> None:
    with pytest.raises(UsageError, match="occlusion"):
        probe(torch.zeros(3, 8, 8), "oclusion", 1)
    with pytest.raises(UsageError, match="patches"):
        probe(torch.zeros(3, 4, 4), "patch_shuffle", 8)
