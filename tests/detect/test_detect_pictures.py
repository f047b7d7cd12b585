"""Pictures: what is drawn, and where names go."""

import numpy as np
from PIL import Image

from excite.detect.data.segments import to_json
from excite.detect.draw import colour_of, draw_curves, draw_detections, free_place, overlaps


def result(box, score, category=1, mask=None):
    entry = {"image_id": 0, "category_id": category, "bbox": list(box), "score": score}
    return entry if mask is None else {**entry, "segmentation": to_json(mask)}


def test_only_detections_above_the_threshold_are_drawn():
    image = Image.new("RGB", (500, 500), "black")
    names = {1: "cat", 2: "dog"}
    assert not np.asarray(draw_detections(image, [result((50, 50, 90, 90), 0.4)], names)).any()
    drawn = np.asarray(draw_detections(image, [result((50, 50, 90, 90), 0.9)], names))
    assert tuple(drawn[140, 100]) == colour_of(1)  # the lower edge of the box
    assert not drawn[300:].any()


def test_masks_are_mixed_into_the_image():
    image = Image.new("RGB", (500, 500), "white")
    mask = np.zeros((500, 500), np.uint8)
    mask[200:300, 200:300] = 1
    drawn = np.asarray(draw_detections(image, [result((150, 150, 200, 200), 0.9, 2, mask)], {1: "a", 2: "b"}))
    expected = 0.55 * 255 + 0.45 * np.array(colour_of(2))
    assert np.abs(drawn[250, 250] - expected).max() <= 1
    assert tuple(drawn[320, 320]) == (255, 255, 255)


def test_small_images_are_enlarged():
    assert draw_detections(Image.new("RGB", (96, 64)), [], {1: "a"}).size == (720, 480)
    assert draw_detections(Image.new("RGB", (640, 480)), [], {1: "a"}).size == (640, 480)


def test_names_do_not_cover_each_other_and_stay_inside():
    placed = []
    for x in (10, 12, 14, 16):
        placed.append(free_place((x, 30, 80, 80), (60, 16), (200, 200), placed))
    for i, a in enumerate(placed):
        assert a[0] >= 0
        assert a[2] <= 200
        assert a[3] <= 200
        assert not any(overlaps(a, b) for b in placed[:i])


def test_colours_differ():
    assert len({colour_of(i) for i in range(1, 81)}) == 80


def test_curves_of_many_categories(tmp_path):
    names = [f"c{i}" for i in range(15)]
    rows = [{"class": n, "objects": i + 1, "AP50": 0.5} for i, n in enumerate(names)]
    curves = {n: [1.0] * 60 + [-1.0] * 41 for n in names}
    draw_curves({"box": {"AP50": 0.5, "per_class": rows, "curves": curves}}, tmp_path / "pr.png")
    assert Image.open(tmp_path / "pr.png").width > 400
