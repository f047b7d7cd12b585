"""Pictures with an EXIF orientation: boxes are of the picture as shown, or as stored where only that size agrees."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from excite.detect.data.base import DetectionDataset, Sample
from excite.errors import ExciteError


def stored(file: Path, orientation: int) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, exif=exif)
    return pixels


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("orientation", "size", "turned"),
    [(1, (30, 20), False), (3, (30, 20), True), (6, (20, 30), True), (6, (30, 20), False), (8, (20, 30), True)],
)
def test_which_way_up(tmp_path: Path, suffix: str, orientation: int, size: tuple[int, int], turned: bool) -> None:
    file = tmp_path / f"x.{suffix}"
    pixels = stored(file, orientation)
    shown = np.rot90(pixels, {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    dataset = DetectionDataset([Sample(1, *size, path=file)], ["a"])
    assert np.array_equal(np.asarray(dataset.image(0)), shown if turned else pixels)


def test_a_size_that_is_neither(tmp_path: Path) -> None:
    stored(tmp_path / "x.png", 6)
    with pytest.raises(ExciteError, match="20x30 pixels, its annotation says 30x21"):
        DetectionDataset([Sample(1, 30, 21, path=tmp_path / "x.png")], ["a"]).image(0)
