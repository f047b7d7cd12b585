"""Detection data: COCO, VOC, shapes; what is skipped, and every bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from excite.detect.data import open_split
from excite.detect.data.segments import decode, encode, problem, to_json
from excite.detect.data.shapes import Shapes
from excite.detect.data.transforms import evaluation_transform, training_transform
from excite.errors import ExciteError, UsageError


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def content():
    def annotation(number, image, category, box, segmentation, crowd=0):
        return {
            "id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd,
            "segmentation": segmentation, "area": box[2] * box[3],
        }  # fmt: skip

    crowd = {"size": [40, 50], "counts": [400, 100, 1500]}
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 50, "height": 40},
            {"id": 9, "file_name": "b.jpg", "width": 50, "height": 40},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            annotation(1, 7, 18, [5, 6, 10, 10], square(5, 6, 10)),
            annotation(2, 7, 3, [20, 6, 12, 12], square(20, 6, 12)),
            annotation(3, 7, 18, [10, 0, 3, 40], crowd, crowd=1),
            annotation(4, 7, 18, [5, 6, 0, 10], square(5, 6, 10)),
            annotation(5, 7, 18, [45, 30, 20, 20], square(45, 30, 20)),
        ],
    }


@pytest.fixture
def coco(tmp_path):
    def write(values=None):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "train2017").mkdir(exist_ok=True)
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (50, 40), "gray").save(tmp_path / "train2017" / name)
        text = values if isinstance(values, str) else json.dumps(values or content(), indent=1)
        (tmp_path / "annotations" / "instances_train2017.json").write_text(text)
        return f"coco:{tmp_path}"

    return write


def test_coco_reads_boxes_names_masks_and_crowds(coco):
    data = open_split(coco(), "train", masks=True)
    assert data.class_names == ["car", "dog"]
    assert data.category_ids == [3, 18]
    image, target = data[0]
    assert image.shape == (3, 40, 50)
    assert target["labels"].tolist() == [2, 1, 2, 2]
    assert target["ignored"].tolist() == [False, False, True, False]
    assert target["boxes"][0].tolist() == [5, 6, 15, 16]
    assert target["boxes"][3].tolist() == [45, 30, 50, 40]  # clipped to the image
    assert target["masks"][0].sum() == 100
    assert target["masks"][2][:, 10:12].sum() > 0
    assert target["masks"][2].sum() == 100
    assert len(data.skipped) == 1
    assert "annotation 4 on image 7" in data.skipped[0]


def test_an_image_without_objects_is_legal(coco):
    data = open_split(coco(), "train2017", masks=True)
    _, target = data[1]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 40, 50)
    data.transform = training_transform(flip=1.0, vertical_flip=1.0)
    assert data[1][1]["boxes"].shape == (0, 4)


def test_training_drops_crowds_and_flips_everything(coco):
    data = open_split(coco(), "train", masks=True)
    plain = data[0][1]
    data.transform = training_transform(flip=1.0)
    image, target = data[0]
    assert image.dtype == torch.float32
    assert image.max() <= 1
    assert target["labels"].tolist() == [2, 1, 2]
    assert target["boxes"][0].tolist() == [35, 6, 45, 16]
    assert torch.equal(target["masks"][0].flip(-1), plain["masks"][0])
    assert type(target["boxes"]) is torch.Tensor
    data.transform = evaluation_transform()
    assert data[0][1]["labels"].tolist() == [2, 1, 2, 2]


def change(path, value):
    values = content()
    place = values
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ('{"images": [\n  {"id": 1,}\n]}', "instances_train2017.json, line 2"),
        ("[]", "no list 'categories'"),
        (change(["annotations"], None), "no list 'annotations'"),
        (change(["annotations", 0, "category_id"], 99), "annotation 1 has category_id 99"),
        (change(["annotations", 0, "image_id"], 99), "annotation 1 has image_id 99"),
        (change(["annotations", 0, "bbox"], [1, 2, 3]), "annotation 1 has bbox [1, 2, 3]"),
        (change(["annotations", 0, "bbox"], None), "annotation 1 has no 'bbox'"),
        (change(["images", 0, "file_name"], "gone.jpg"), "gone.jpg, which is missing"),
        (change(["images", 0, "width"], None), "image 7 has no 'width'"),
        (change(["annotations", 1], 5), "entry 1 of 'annotations' has no 'id'"),
        (change(["categories", 0, "name"], None), "category 18 has no 'name'"),
    ],
)
def test_broken_coco_files(coco, values, message):
    with pytest.raises(ExciteError) as caught:
        open_split(coco(values), "train")
    assert message in str(caught.value)


def test_missing_coco_files(coco, tmp_path):
    spec = coco()
    with pytest.raises(UsageError, match=r"instances_val\*\.json; splits there: train2017"):
        open_split(spec, "val")
    with pytest.raises(UsageError, match="no folder"):
        open_split("coco:/nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no instances_\*\.json is there"):
        open_split(f"coco:{tmp_path / 'empty'}", "train")
    with pytest.raises(UsageError, match="has no images"):
        open_split(coco({**content(), "images": [], "annotations": []}), "train")


def test_bad_segmentations_are_skipped_and_named(coco):
    values = content()
    values["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    values["annotations"][2]["segmentation"] = {"size": [40, 50], "counts": [1, 2]}
    data = open_split(coco(values), "train", masks=True)
    assert len(data.skipped) == 3
    assert "no polygon of three points" in data.skipped[0]
    assert "run lengths of 3 pixels" in data.skipped[1]


def test_an_object_without_a_mask_is_fine_for_boxes_only(coco):
    values = content()
    del values["annotations"][0]["segmentation"]
    assert len(open_split(coco(values), "train").samples[0].annotations) == 4
    with pytest.raises(UsageError, match="image 7 has an object without a segmentation"):
        open_split(coco(values), "train", masks=True)


def test_an_image_of_another_size_or_broken(coco, tmp_path):
    data = open_split(coco(), "train")
    Image.new("RGB", (40, 40)).save(tmp_path / "train2017" / "a.jpg")
    with pytest.raises(ExciteError, match="40x40 pixels, its annotation says 50x40"):
        data[0]
    (tmp_path / "train2017" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ExciteError, match=r"a\.jpg cannot be read"):
        data[0]
    (tmp_path / "train2017" / "a.jpg").unlink()
    with pytest.raises(ExciteError, match=r"a\.jpg is missing"):
        data[0]


def thing(name, box, difficult=0):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>\n<bndbox>{corners}</bndbox></object>\n"


@pytest.fixture
def voc(tmp_path):
    def write(*things, name="one", size="<size><width>50</width><height>40</height></size>"):
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), "gray").save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}\n{''.join(things)}</annotation>")
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\n")
        return f"voc:{tmp_path}"

    return write


def test_voc_counts_pixels_from_one(voc):
    data = open_split(voc(thing("cell", (1, 1, 50, 40)), thing("ant", (11, 12, 20, 22), difficult=1)), "train")
    assert data.class_names == ["ant", "cell"]
    _, target = data[0]
    assert target["boxes"].tolist() == [[0, 0, 50, 40], [10, 11, 20, 22]]
    assert target["ignored"].tolist() == [False, True]
    assert target["image_id"] == "one"


def test_voc_degenerate_boxes_are_named_with_their_line(voc):
    data = open_split(
        voc(thing("cell", (5, 5, 9, 9)), thing("cell", (5, 5, 5, 9)), thing("cell", (60, 5, 70, 9))), "train"
    )
    assert len(data.samples[0].annotations) == 1
    assert data.skipped[0].startswith("one.xml, line 5: cell box (5, 5, 5, 9)")
    assert len(data.skipped) == 2


@pytest.mark.parametrize(
    ("things", "size", "message"),
    [
        (["<object>\n<name>x</name></wrong>"], None, "one.xml, line 3, column"),
        (["<object><name>x</name></object>"], None, "line 2: object 'x' has no <bndbox>"),
        (["<object>\n<bndbox/></object>"], None, "line 2: <object> has no <name>"),
        ([thing("x", (1, 2, "three", 4))], None, "<xmax> is 'three', not a number"),
        ([thing("x", (1, 2, 3, 4))], "<size><width>0</width><height>9</height></size>", "a whole number from 1"),
        ([thing("x", (1, 2, 3, 4))], "<size><width>50</width></size>", "has no <height>"),
    ],
)
def test_broken_voc_files(voc, things, size, message):
    spec = voc(*things) if size is None else voc(*things, size=size)
    with pytest.raises(ExciteError) as caught:
        open_split(spec, "train")
    assert message in str(caught.value)


def test_missing_voc_files(voc, tmp_path):
    spec = voc(thing("cell", (1, 1, 9, 9)))
    with pytest.raises(UsageError, match=r"val\.txt; splits there: train"):
        open_split(spec, "val")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("\n")
    with pytest.raises(UsageError, match="names no image"):
        open_split(spec, "val")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("two\n")
    with pytest.raises(ExciteError, match=r"two\.xml is missing"):
        open_split(spec, "val")
    (tmp_path / "JPEGImages" / "one.jpg").unlink()
    with pytest.raises(ExciteError, match=r"an image that is missing: .*one\.jpg"):
        open_split(spec, "train")
    with pytest.raises(UsageError, match="boxes only"):
        open_split(voc(thing("cell", (1, 1, 9, 9))), "train", masks=True)
    with pytest.raises(UsageError, match="no object in any file"):
        open_split(voc(), "train")


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("shape", "train", "did you mean 'shapes'"),
        ("coco", "train", "write coco:PATH"),
        ("shapes:sise=9", "train", "did you mean 'size'"),
        ("shapes:size=x", "train", "expected a whole number"),
        ("shapes:size=8", "train", "at least 1 image, 32 pixels"),
        ("shapes", "trainval", "unknown split of shapes"),
        ("shapes:train=0", "train", "at least 1 image"),
        ("my.py:give", "train", "a program gives data to learn classes; detection data are shapes"),
    ],
)
def test_bad_specs(spec, split, message):
    with pytest.raises(UsageError) as caught:
        open_split(spec, split)
    assert message in str(caught.value)


def test_negative_limits():
    with pytest.raises(UsageError, match="limit of -1"):
        open_split("shapes", "train", limit=-1)


def test_shapes_are_seeded_and_their_boxes_fit_their_masks():
    one, same, other = Shapes("train", count=6), Shapes("train", count=6), Shapes("train", count=6, seed=1)
    assert np.array_equal(np.asarray(one.image(3)), np.asarray(same.image(3)))
    assert not np.array_equal(np.asarray(one.image(3)), np.asarray(other.image(3)))
    assert not np.array_equal(np.asarray(one.image(3)), np.asarray(Shapes("val", count=6).image(3)))
    one.with_masks = True
    for index in range(6):
        image, target = one[index]
        assert image.shape == (3, 128, 128)
        assert 1 <= len(target["labels"]) <= 4
        assert target["masks"].sum(0).max() == 1  # what is covered belongs to the shape on top
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_segments_survive_their_forms():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 1
    rle = encode(mask, 6, 8)
    assert np.array_equal(decode(rle, 6, 8), mask)
    assert np.array_equal(decode(to_json(mask), 6, 8), mask)
    counts = [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8]  # column by column
    assert np.array_equal(decode({"size": [6, 8], "counts": counts}, 6, 8), mask)
    assert problem("x", 6, 8) is not None
    assert problem({"size": [6, 9], "counts": []}, 6, 8) is not None


def test_bccd_has_two_degenerate_boxes(shared_data):
    data = open_split(f"voc:{shared_data / 'bccd'}", "trainval")
    assert data.class_names == ["Platelets", "RBC", "WBC"]
    assert len(data) == 292
    assert len(data.skipped) == 2


def test_coco_tiny_opens_with_masks(shared_data):
    data = open_split(f"coco:{shared_data / 'coco_tiny'}", "val", masks=True)
    assert len(data) == 80
    assert len(data.class_names) == 80
    assert sum(t.crowd for s in data.samples for t in s.annotations) == 11
    assert not data.skipped
