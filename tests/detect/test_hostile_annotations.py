"""Annotation and results files of every broken kind: one line; no traceback, no crash, not much memory."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from excite.detect.data import open_split
from excite.detect.data.base import load_image
from excite.detect.data.coco import read_json
from excite.detect.data.segments import decode, problem, to_json
from excite.detect.data.voc import read_xml
from excite.detect.results import read_results
from excite.errors import ExciteError

Change = Callable[[dict[str, Any]], object]
SIDE = 16
ODD: dict[str, Any] = {
    "none": None,
    "list": [1],
    "mapping": {"a": 1},
    "text": "x",
    "empty": "",
    "true": True,
    "nan": float("nan"),
    "infinity": float("inf"),
    "negative": -1,
    "zero": 0,
    "fraction": 1.5,
    "huge": 10**400,
    "large": 2**40,
    "nested": [[[[]]]],
}


def coco() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": 0,
             "segmentation": [[1, 1, 8, 1, 8, 8]]}
        ],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in ("annotations", "images", "Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / place).mkdir(parents=True)
    for file in ("images/a.png", "JPEGImages/a.png"):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / file)
    return tmp_path


def write(folder: Path, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "annotations" / "instances_train.json").write_text(text)


def opened(folder: Path, kind: str = "coco") -> str | None:
    """Open a data set and read its items; return what was refused, None where all went well."""
    try:
        for masks in (False, True) if kind == "coco" else (False,):
            dataset = open_split(f"{kind}:{folder}", "train", masks=masks)
            for index in range(len(dataset)):
                dataset[index]
    except ExciteError as error:
        reason = str(error)
    else:
        return None
    assert len(reason.splitlines()) == 1, reason
    assert len(reason) < 1000
    return reason


def test_every_value_of_every_entry_may_be_anything(folder: Path) -> None:
    refused = 0
    for part, entries in coco().items():
        for key in entries[0]:
            for odd in ODD.values():
                content = coco()
                content[part][0][key] = odd
                write(folder, content)
                refused += opened(folder) is not None
            content = coco()
            del content[part][0][key]
            write(folder, content)
            opened(folder)
    assert refused > 90


REFUSED: dict[str, tuple[Change, str]] = {
    "list id": (lambda c: c["images"][0].update(id=[1]), "image .* has id"),
    "mixed ids": (lambda c: c["categories"][0].update(id="one"), "some have texts"),
    "same image": (lambda c: c["images"].append(c["images"][0]), "two entries of 'images' have the id 1"),
    "same category": (lambda c: c["categories"].append(c["categories"][0]), "two entries of 'categories'"),
    "far width": (lambda c: c["images"][0].update(width=float("inf")), "width inf; expected a whole number"),
    "many pixels": (lambda c: c["images"][0].update(width=60000, height=60000), "at most 268435456 pixels"),
    "name": (lambda c: c["categories"][0].update(name=["cat"]), "name .*; expected a text"),
    "long name": (lambda c: c["categories"][0].update(name="x" * 10**6), "name 'xxx.*; expected a text"),
    "outside": (lambda c: c["images"][0].update(file_name="../images/a.png"), "the name of a file in"),
    "absolute": (lambda c: c["images"][0].update(file_name="/etc/a.png"), "the name of a file in"),
    "zero byte": (lambda c: c["images"][0].update(file_name="a\0.png"), "the name of a file in"),
    "box of texts": (lambda c: c["annotations"][0].update(bbox=["1", 1, 2, 2]), "expected .x, y, width, height"),
    "area": (lambda c: c["annotations"][0].update(area="64"), "area '64'; expected a finite number"),
    "crowd": (lambda c: c["annotations"][0].update(iscrowd=[0]), "iscrowd"),
    "category": (lambda c: c["annotations"][0].update(category_id=[1]), "category_id"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_wrong_is_named(name: str, folder: Path) -> None:
    change, words = REFUSED[name]
    content = coco()
    change(content)
    write(folder, content)
    with pytest.raises(ExciteError, match=words):
        open_split(f"coco:{folder}", "train")


@pytest.mark.parametrize(
    "segment",
    [
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[float("nan")] * 6],
        [["a"] * 6],
        [[0, 0, 9, 0, 9, None]],
        [7, [0, 0]],
        {"size": 5, "counts": []},
        {"size": [SIDE, SIDE], "counts": [-1, SIDE * SIDE + 1]},
        {"size": [SIDE, SIDE], "counts": ["1"]},
        {"size": [SIDE, SIDE], "counts": "o" * 4000},
        {"size": [SIDE, SIDE], "counts": "ooooooo0"},
        {"size": [SIDE, SIDE], "counts": "PPPPPPP\x00"},
        {"size": [SIDE, SIDE], "counts": "ooo"},
        {"size": [SIDE, SIDE], "counts": "é€"},
        {"size": [SIDE, SIDE], "counts": 7},
        {"size": [10**6, 10**6], "counts": [10**12]},
    ],
)
def test_a_mask_that_cannot_be_drawn_is_left_out(segment: object, folder: Path) -> None:
    content = coco()
    content["annotations"][0]["segmentation"] = segment
    write(folder, content)
    dataset = open_split(f"coco:{folder}", "train")
    assert len(dataset.skipped) == 1
    assert not dataset.samples[0].annotations


def test_good_masks_stay() -> None:
    generator = np.random.default_rng(0)
    for side in (1, 2, 7, 40):
        for share in (0, 0.1, 0.5, 1):
            mask = (generator.random((side, side + 3)) < share).astype(np.uint8)
            segment = to_json(mask)
            assert problem(segment, *mask.shape) is None
            assert np.array_equal(decode(segment, *mask.shape), mask)
            assert problem({**segment, "counts": segment["counts"] + "1"}, *mask.shape) is not None


@pytest.mark.parametrize(
    "text",
    ["", "[", "null", "7", '{"images": 1}', '{"images": [1]}', "[" * 100_000, '{"images": [' + "9" * 5000 + "]}",
     '{"images": [], "categories": [], "annotations": []}', "\ufeff{}", '{"images": [{"id": 1e400}]}'],
    ids=range(11),
)  # fmt: skip
def test_a_broken_file(text: str, folder: Path) -> None:
    write(folder, text)
    assert opened(folder) is not None


def test_results_of_every_broken_kind(folder: Path) -> None:
    write(folder, coco())
    dataset = open_split(f"coco:{folder}", "train", masks=True)
    good = {"image_id": 1, "category_id": 2, "bbox": [1, 1, 4, 4], "score": 0.5, "segmentation": to_json(np.eye(16))}
    file = folder / "results.json"
    file.write_text(json.dumps([good]))
    assert read_results(file, dataset, masks=True) == [good]
    for key in good:
        for name, odd in ODD.items():
            if key == "score" and name in ("negative", "zero", "fraction", "large"):
                continue
            file.write_text(json.dumps([good, {**good, key: odd}]))
            with pytest.raises(ExciteError, match="detection 1") as caught:
                read_results(file, dataset, masks=True)
            assert len(str(caught.value)) < 1000, (key, name)
    for content in (7, {}, [7], [[good]], None):
        file.write_text(json.dumps(content))
        with pytest.raises(ExciteError, match=r"results\.json"):
            read_results(file, dataset)


VOC = (
    "<annotation><size><width>16</width><height>16</height></size><object><name>cat</name><bndbox><xmin>1</xmin>"
    "<ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize(
    "xml",
    [
        VOC.replace("<width>16<", f"<width>{value}<")
        for value in ("1e400", "nan", "-1", "0", "1.5", "a", "", "9" * 500, "65536")
    ]
    + ["", "<a>", "<a/>", VOC.replace("cat", " "),
       VOC.replace("cat", "c" * 5000), VOC.replace("bndbox", "box"), VOC.replace("<xmin>1<", "<xmin>one<"),
       '<?xml version="1.0" encoding="rot13"?>' + VOC, '<?xml version="1.0" encoding="UTF-16"?>' + VOC,
       "<annotation>" + "<a>" * 50 + "</annotation>"],
    ids=range(19),
)  # fmt: skip
def test_voc_of_every_broken_kind(xml: str, folder: Path) -> None:
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    (folder / "Annotations/a.xml").write_text(VOC)
    assert opened(folder, "voc") is None
    (folder / "Annotations/a.xml").write_text(xml)
    assert opened(folder, "voc") is not None


@pytest.mark.parametrize("box", ["nan", "1e400", "-1e400", "1e308"])
def test_voc_boxes_without_end_are_left_out_or_cut(box: str, folder: Path) -> None:
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    (folder / "Annotations/a.xml").write_text(VOC.replace("<xmax>8<", f"<xmax>{box}<"))
    assert opened(folder, "voc") is None


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a\0", "x" * 5000, ".."])
def test_voc_names_stay_in_their_folder(name: str, folder: Path) -> None:
    (folder / "ImageSets/Main/train.txt").write_text(f"{name}\n")
    (folder / "Annotations/a.xml").write_text(VOC)
    assert "is not the name of a file" in str(opened(folder, "voc"))


def test_voc_lists_are_texts(folder: Path) -> None:
    (folder / "Annotations/a.xml").write_text(VOC)
    (folder / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in str(opened(folder, "voc"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for read in (read_json, read_xml, load_image):
        with pytest.raises(ExciteError, match="it is no file"):
            read(pipe)
