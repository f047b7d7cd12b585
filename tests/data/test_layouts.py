"""Layouts and traps that people have: the command of the first attempt, and its outcome.

docs/data.md shows these tables; every row is made small here and tried.
"""

import json
import re
from pathlib import Path

import pytest

import layouts as made
from excite.cli.main import main
from excite.data import open_data
from excite.detect.data import open_split
from excite.errors import ExciteError, UsageError
from imagesets import CLASSES, picture

# What somebody has -> (training, validation, test images; True where val and test are the same; what is said).
LAYOUTS: dict[made.Maker, tuple[tuple[int, int, int], bool, str]] = {
    made.flat: ((10, 2, 2), True, "took PLACE as imagefolder: 2 classes, 12 images"),
    made.train_only: ((10, 2, 2), True, "held out 2 of 12 training images as the val split"),
    made.train_val: ((12, 6, 6), True, "took PLACE as imagefolder: 2 classes, 18 images"),
    made.train_test: ((12, 6, 6), True, "took PLACE as imagefolder: 2 classes, 18 images"),
    made.three_splits: ((12, 6, 6), False, "took PLACE as imagefolder: 2 classes, 24 images"),
    made.tiny_imagenet: ((12, 4, 4), True, "val: 4 images with their labels from val_annotations.txt"),
    made.imagenet_solution: ((12, 4, 4), True, "val: 4 images with their labels from LOC_val_solution.csv"),
    made.imagenet_numbers: ((12, 4, 4), True, "val: 4 images with their labels from val.txt"),
    made.csv_words: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_numbers: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_splits: ((6, 2, 2), False, "took PLACE as csv: 2 classes, 10 images"),
    made.csv_bare: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_spreadsheet: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_other_machine: ((10, 2, 2), True, r"took C:\Users\me\My photos\cat\0.png as cat/0.png in "),
    made.csv_marked: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_absolute: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_kaggle: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.csv_folder: ((10, 2, 2), True, "took PLACE as csv: 2 classes, 12 images"),
    made.zipped: ((10, 2, 2), True, "took PLACE as imagefolder: 2 classes, 12 images"),
    made.with_junk: ((10, 2, 2), True, "passed over 1 folders without images: empty"),
    made.wrapped: ((10, 2, 2), True, "took photos, the only folder in PLACE"),
    made.days: ((12, 4, 4), True, "took PLACE as imagefolder: 2 classes, 16 images"),
    made.parquet: ((12, 12, 12), True, "took PLACE as parquet: 2 classes, 24 images"),
    made.parquet_numbers: ((12, 12, 12), True, "took PLACE as parquet: 2 classes, 24 images"),
    made.parquet_file: ((10, 2, 2), True, "took PLACE as parquet: 2 classes, 12 images"),
    made.parquet_plain: ((10, 2, 2), True, "took PLACE as parquet: 2 classes, 12 images"),
    made.shards: ((6, 6, 6), True, "took PLACE as wds: 2 classes, 12 images"),
    made.saved_to_disk: ((10, 2, 2), True, "took PLACE as hfds: 2 classes, 12 images"),
    made.turned: ((10, 2, 2), True, "took PLACE as imagefolder: 2 classes, 12 images"),
    made.sixteen_bits: ((10, 2, 2), True, "took PLACE as imagefolder: 2 classes, 12 images"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCITE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_layout_is_recognised_at_the_first_attempt(make: made.Maker, tmp_path: Path) -> None:
    counts, same, words = LAYOUTS[make]
    place = make(tmp_path)
    bundle = open_data(place)
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == counts
    assert (bundle.val is bundle.test) == same
    assert bundle.num_classes == 2
    assert words.replace("PLACE", place) in "\n".join(bundle.notes)
    for images in (bundle.train, bundle.val):
        assert {images[i][1] for i in range(len(images))} == {0, 1}
    names = [images.name(i) for images in (bundle.train, bundle.val) for i in range(len(images))]
    assert len(set(names)) == len(names)
    assert not any("._" in name or "__MACOSX" in name for name in names)


def test_labels_are_those_of_the_file(tmp_path: Path) -> None:
    for make, expected in ((made.tiny_imagenet, [0, 1, 0, 1]), (made.imagenet_numbers, [0, 1, 0, 1])):
        folder = tmp_path / make.__name__
        folder.mkdir()
        val = open_data(make(folder)).val
        assert [val[i][1] for i in range(4)] == expected
    numbers = open_data(made.csv_numbers(tmp_path / "imagenet_numbers"))
    assert numbers.class_names == ["3", "4"]


def test_what_was_passed_over_is_counted(tmp_path: Path) -> None:
    notes = open_data(made.with_junk(tmp_path)).notes
    assert any(note.startswith("passed over 3 hidden or system entries, such as ") for note in notes)


def test_a_zip_file_is_unpacked_once(tmp_path: Path) -> None:
    place = made.zipped(tmp_path)
    first = open_data(place).train.name(0)  # type: ignore[attr-defined]
    stamp = Path(first).stat().st_ino
    assert Path(open_data(place).train.name(0)).stat().st_ino == stamp
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(ExciteError, match=r"cannot unpack .*bad\.zip"):
        open_data(str(tmp_path / "bad.zip"))


def test_training_and_testing_name_the_folder_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, run = made.flat(tmp_path), str(tmp_path / "run")
    words = ["--options.width", "4", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    assert main(["train", "resnet20", "--data", place, "--out", run, *words]) == 0
    out = capsys.readouterr().out
    assert f"took {place} as imagefolder: 2 classes, 12 images" in out
    assert "10 training, 2 validation images" in out
    assert main(["test", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    image = next(Path(place, "cat").glob("*.png"))
    sample = image.rename(tmp_path / image.name)
    Path(place).rename(tmp_path / "moved")
    for command, remedy in (
        (["test", run], "name the data with --data SPEC"),
        (["explain", run], "name the data with --data SPEC"),
        (["train", "--resume", run, "--epochs", "2"], "put them (or a link to them) there"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert f"run was trained on {place}: no folder or file {place}" in error.replace("/checkpoints/last.ckpt", "")
        assert remedy in error
        assert len(error.splitlines()) == 1
    sample.rename(tmp_path / "moved/cat" / image.name)
    assert main(["test", run, "--data", str(tmp_path / "moved"), "--json"]) == 0
    assert main(["predict", run, str(tmp_path / "moved/dog")]) == 0


# Traps -> what somebody did, and the words that name the mistake and the way out.


def nested(root: Path) -> str:
    made.classes(root / "photos/animals", ["cat", "dog"])
    made.classes(root / "photos/cars", ["bus", "van"])
    return str(root / "photos")


def one_class(root: Path) -> str:
    made.classes(root / "photos", ["cat"])
    made.draw(root / "photos/cat.txt.png", 3)
    return str(root / "photos")


def loose(root: Path) -> str:
    for i in range(4):
        made.draw(root / f"photos/{i}.png", i)
    return str(root / "photos")


def one_of_them(root: Path) -> str:
    return made.flat(root) + "/cat"


def heic(root: Path) -> str:
    for name in CLASSES:
        (root / "photos" / name).mkdir(parents=True)
        (root / "photos" / name / "IMG_1.HEIC").write_bytes(b"ftypheic")
    return str(root / "photos")


def misspelt(root: Path) -> str:
    made.flat(root)
    return str(root / "photoes")


def no_train(root: Path) -> str:
    made.classes(root / "photos/val")
    made.classes(root / "photos/test")
    return f"imagefolder:{root}/photos"


def other_classes(root: Path) -> str:
    made.classes(root / "photos/train")
    made.classes(root / "photos/val", ["cat", "cow"])
    return str(root / "photos")


def wrong_pattern(root: Path) -> str:
    made.shards(root)
    return f"wds:{root}/trian-{{0..1}}.tar"


def wrong_wds_folder(root: Path) -> str:
    return f"wds:{root}/shards/*.tar"


def half_a_list(root: Path) -> str:
    place = made.imagenet_numbers(root)
    (root / "in/val.txt").write_text("ILSVRC2012_val_00000000.JPEG 0\n")
    return place


def foreign_label(root: Path) -> str:
    place = made.tiny_imagenet(root)
    file = root / "tiny/val/val_annotations.txt"
    file.write_text(file.read_text().replace("n02", "n09"))
    return place


def csv_without_images(root: Path) -> str:
    (root / "labels.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    return str(root / "labels.csv")


def csv_without_label(root: Path) -> str:
    (root / "labels.csv").write_text("path,width,height\na.png,3,3\n")
    return str(root / "labels.csv")


def csv_of_latin_1(root: Path) -> str:
    made.csv_words(root)
    (root / "labels.csv").write_bytes("path,label\nimages/0.png,Bär\n".encode("latin-1"))
    return str(root / "labels.csv")


def csv_of_two_machines(root: Path) -> str:
    """Once without their folders, two images have one name."""
    made.draw(root / "0.png", 0)
    (root / "labels.csv").write_text("path,label\n/a/cat/0.png,cat\n/b/dog/0.png,dog\n")
    return str(root / "labels.csv")


def csv_strange_split(root: Path) -> str:
    return made.table(root, ["path", "label", "split"], [["a.png", "cat", "fold1"]])


def one_image(root: Path) -> str:
    return str(made.draw(root / "cat.png", 1))


def text_file(root: Path) -> str:
    (root / "notes.md").write_text("notes")
    return str(root / "notes.md")


def boxes_for_classes(root: Path) -> str:
    return made.voc_lower_case(root)


def no_held_out(root: Path) -> str:
    return made.flat(root) + "@val=0"


def cut_again(root: Path) -> str:
    return made.train_val(root) + "@val=0.2"


TRAPS: dict[made.Maker, str] = {
    nested: "hold no images but folders, as animals/cat, animals/dog; classes are the folders directly below: name ",
    one_class: "has one class (cat); training needs two or more",
    loose: "lie in no class folders: list them with their labels in a file, csv:FILE",
    one_of_them: "it may be one class of several: name the folder of them, ",
    heic: "there are 2 pictures (.heic) that are not read here; convert them to JPEG or PNG",
    misspelt: "did you mean ",
    no_train: "there is no folder train in ",
    other_classes: "classes ['cow'] are in ",
    wrong_pattern: "holds train-0.tar, val-0.tar",
    wrong_wds_folder: "there is no folder ",
    half_a_list: "has no row for 3 of 4 images, such as ILSVRC2012_val_00000001.JPEG",
    foreign_label: "class 'n09' is not among the 2 of the training images",
    csv_without_images: "its images are not there, such as ",
    csv_without_label: "no column label among path, width, height; expected a header such as path,label,split",
    csv_of_latin_1: "it is not UTF-8 text; save it as 'CSV UTF-8'",
    csv_of_two_machines: "its images are not there, such as /a/cat/0.png",
    csv_strange_split: "'fold1' is no split; expected train",
    one_image: "is one image; data are a folder, a table",
    text_file: "is no data that is known here; expected a folder",
    boxes_for_classes: "it is data for detection: excite detect train --data voc:",
    no_held_out: "give --val-fraction 0.2 or a val split",
    cut_again: "there is a val split already",
}


@pytest.mark.parametrize("make", TRAPS, ids=lambda make: make.__name__)
def test_trap_is_named_with_its_way_out(make: made.Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = make(tmp_path)
    assert main(["train", "resnet20", "--data", place, "--out", str(tmp_path / "run"), "--quiet"]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("excite: error: ")
    assert len(error.strip().splitlines()) == 1
    assert TRAPS[make] in error
    assert not (tmp_path / "run").exists()


def test_missing_files_of_a_table_are_counted_and_named(tmp_path: Path) -> None:
    place = made.csv_words(tmp_path)
    (tmp_path / "images/3.png").unlink()
    bundle = open_data(place)
    assert any(note.startswith("1 of 12 files are missing, such as ") for note in bundle.notes)


# Detection: (training, validation images).
DETECTION: dict[made.Maker, tuple[int, int]] = {
    made.voc_lists: (8, 2),
    made.voc_without_lists: (8, 2),
    made.voc_lower_case: (8, 2),
    made.voc_per_split: (10, 10),
    made.voc_side_by_side: (8, 2),
    made.roboflow: (10, 10),
    made.coco_result: (8, 2),
    made.coco_plain: (10, 10),
    made.coco_zipped: (10, 10),
    made.coco_undivided: (8, 2),
    made.yolo: (10, 10),
    made.yolo_undivided: (8, 2),
}


@pytest.mark.parametrize("make", DETECTION, ids=lambda make: make.__name__)
def test_boxes_are_recognised_at_the_first_attempt(make: made.Maker, tmp_path: Path) -> None:
    place = make(tmp_path)
    train, val = (open_split(place, split) for split in ("train", "val"))
    assert (len(train), len(val)) == DETECTION[make]
    if DETECTION[make] == (8, 2):
        assert not {s.image_id for s in train.samples} & {s.image_id for s in val.samples}
    assert set(train.class_names) <= {*CLASSES, "things"}
    by_name = {sample.path.stem: sample for sample in (*train.samples, *val.samples) if sample.path}
    for i, (name, (x1, y1, x2, y2)) in enumerate(made.boxes()):
        (annotation,) = by_name[name].annotations
        first = 1 if "voc" in make.__name__ else 0  # VOC counts pixels from one and includes both ends
        assert annotation.box == pytest.approx((x1 - first, y1 - first, x2 - x1 + first, y2 - y1 + first), abs=1e-6)
        named = train.class_names[annotation.label - 1]
        assert named == (CLASSES[len(name) % 2] if first else CLASSES[i % 2])
    image, _ = train[0]
    assert image.shape == (3, 16, 20)


@pytest.mark.parametrize(
    ("names", "spec", "words"),
    [
        (["JPEGImages"], "voc:PLACE", "no folder PLACE/Annotations (or annotations, "),
        (["pictures"], "coco:PLACE", "no folder PLACE/annotations and no instances_*.json is there, only pictures"),
        (["labels"], "yolo:PLACE", "no names of the classes; expected `names: [cat, dog]` in PLACE/data.yaml"),
        (["pictures"], "PLACE", "has no boxes that are known here, only pictures"),
        (["pictures"], "PLACE/picture", "no folder or file PLACE/picture; did you mean PLACE/pictures?"),
    ],
)
def test_missing_folders_are_named(names: list[str], spec: str, words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError) as caught:
        open_split(spec.replace("PLACE", str(tmp_path)), "train")
    assert words.replace("PLACE", str(tmp_path)) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("9 .5 .5 .1 .1", "im0.txt, line 1: class 9 is not among the 2 of data.yaml"),
        ("0 .5 .5 .1", "3 numbers; expected x y width height"),
        ("cat .5 .5 .1 .1", "is not a class and numbers"),
        ("0 nan .5 .1 .1", "4 numbers; expected"),
    ],
)
def test_broken_yolo_lines(line: str, words: str, tmp_path: Path) -> None:
    place = made.yolo_undivided(tmp_path)
    for name, _ in made.boxes():
        (tmp_path / f"set/labels/{name}.txt").write_text(line)
    with pytest.raises(ExciteError) as caught:
        open_split(place, "train")
    assert words.replace("im0", "im").split("im.txt")[-1] in str(caught.value)


def test_yolo_outlines_are_masks(tmp_path: Path) -> None:
    place = made.yolo_undivided(tmp_path)
    for name, _ in made.boxes():
        (tmp_path / f"set/labels/{name}.txt").write_text("1 .1 .125 .5 .125 .5 .625 .1 .625\n")
    data = open_split(place, "train", masks=True)
    _, target = data[0]
    assert target["boxes"].tolist() == [[2, 2, 10, 10]]
    assert 55 <= int(target["masks"].sum()) <= 81


# Looking at data.


def test_show_data_says_what_is_there_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(made.train_val(tmp_path))
    copy = next((place / "train/cat").glob("*.png"))
    (place / "val/cat/copy.png").write_bytes(copy.read_bytes())
    (place / "train/dog/bad.png").write_bytes(b"nothing")
    for i in range(70):
        made.draw(place / f"train/cat/more{i}.png", 5000 + i)
    sheet = tmp_path / "sheet.png"
    assert main(["show", "data", str(place), "--out", str(sheet)]) == 0
    out = capsys.readouterr().out
    for words in (
        "2 classes; 83 training, 7 validation images",
        "width 20 to 20 (median 20), height 16 to 16 (median 16) pixels",
        "train: 1 of 83 images looked at cannot be read",
        "1 images of val are training images too",
        "classes are uneven: 76 training images of cat, 7 of dog",
        "1 classes have fewer than 10 training images: dog",
    ):
        assert words in out
    assert re.search(r"^cat +76 +4$", out, re.MULTILINE)
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert main(["show", "data", str(place), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["train"]["per_class"] == {"cat": 76, "dog": 7}
    assert len(report["wrong"]) == 4


def test_show_data_names_one_picture_in_two_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(made.train_val(tmp_path))
    picture_of_cat = sorted((place / "train/cat").glob("*.png"))[0]
    for copy in ("train/dog/copy.png", "val/dog/copy.png", "train/cat/again.png"):
        (place / copy).write_bytes(picture_of_cat.read_bytes())
    assert main(["show", "data", str(place)]) == 0
    out = capsys.readouterr().out
    for split in ("train", "val"):
        assert f"{split}: 1 images have two labels: " in out
    assert out.count("are the same picture in two classes") == 2
    assert "dog/copy.png" in out


def test_show_data_of_sound_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, name in enumerate(CLASSES):
        for i in range(14):
            folder = tmp_path / "photos" / name
            folder.mkdir(parents=True, exist_ok=True)
            picture(100 * label + i).save(folder / f"{i}.png")
    assert main(["show", "data", str(tmp_path / "photos"), "--limit", "20"]) == 0
    assert "nothing wrong was seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "SE"], 0, "se: "),
        (["show", "eca_resnet20"], 0, "excite show eca"),
        (["show", "ECA_ResNet20"], 0, "eca_resnet20: ResNet-20"),
        (["show", "sse2"], 2, "did you mean"),
        (["show", "data"], 2, "name the data: excite show data PATH"),
        (["show", "eca", "digits"], 2, "one word too many"),
        (["list", "data"], 0, "imagefolder:PATH"),
        (["list", "torchvision/resnet1*"], 0, "torchvision/resnet18"),
        (["list", "torchvision/resnet1x"], 2, "did you mean torchvision/resnet1"),
        (["list", "eca_resnet2o"], 2, "or 'eca_resnet20'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_near_misses(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    output = capsys.readouterr()
    assert said in (output.out if code == 0 else output.err)


# What a layout or trap is called in the tables of docs/data.md.
DOCUMENTED = {
    "flat": "`photos/cat/*.jpg`, `photos/dog/*.jpg`",
    "train_only": "`photos/train/cat/...` alone",
    "train_val": "`train/` and `val/` (`valid/`, `validation/`)",
    "train_test": "`Train/` and `Test/`, in any case of letters",
    "three_splits": "`training/`, `validation/`, `testing/`",
    "days": "`cat/monday/*.jpg`, `dog/monday/*.jpg`",
    "wrapped": "one folder in another, as archives have it",
    "with_junk": "`__MACOSX`, `._*`, hidden files, empty class folders",
    "zipped": "`photos.zip`",
    "tiny_imagenet": "Tiny-ImageNet: `train/n01/images/`, `val/images/`, `val/val_annotations.txt`",
    "imagenet_solution": "ImageNet: `val/*.JPEG` flat, `LOC_val_solution.csv`",
    "imagenet_numbers": "ImageNet: `val/*.JPEG` flat, `val.txt` with numbers",
    "csv_words": "a table with `path,label` in words",
    "csv_numbers": "a table with `id,target`, numbers, names without `.jpg`",
    "csv_splits": "a table with `file,class,split`",
    "csv_bare": "a table without a header",
    "csv_folder": "a folder with images and one table",
    "csv_kaggle": "`train/*.jpg` flat, `train.csv`, `test/*.jpg`, `sample_submission.csv`",
    "csv_spreadsheet": "a table of a spreadsheet: semicolons, byte order mark, `photos\\cat\\1.jpg`",
    "csv_marked": "a table that begins with `sep=;`, with columns of other names",
    "csv_other_machine": "a table with `C:\\Users\\...` of another machine, UTF-16",
    "csv_absolute": "a table with absolute paths",
    "parquet": "`train*.parquet`, `test*.parquet` of `datasets`",
    "parquet_numbers": "the same with numbers as labels",
    "parquet_file": "one `.parquet` file",
    "parquet_plain": "`.parquet` with plain bytes and words",
    "shards": "`train-0.tar`, `val-0.tar`",
    "saved_to_disk": "a folder of `save_to_disk`",
    "turned": "photos of a telephone: EXIF, `.JPG`, many sizes",
    "sixteen_bits": "16-bit TIFF",
    "program": "a function that gives data sets",
    "voc_lists": "VOC: `Annotations/`, `JPEGImages/`, lists",
    "voc_without_lists": "VOC without lists",
    "voc_lower_case": "`images/` and `annotations/*.xml`",
    "voc_per_split": "a VOC export with a folder per split",
    "voc_side_by_side": "LabelImg: `a.jpg` and `a.xml` side by side, with or without a size",
    "coco_result": "Label Studio: `result.json` and `images/`",
    "coco_plain": "`annotations/train.json`, `annotations/val.json`",
    "roboflow": "Roboflow: `train/_annotations.coco.json`, `valid/`, `test/`",
    "coco_zipped": "the same as `set.zip`",
    "coco_undivided": "`annotations/instances_default.json` alone",
    "yolo": "YOLO: `data.yaml`, `train/images`, `train/labels`",
    "yolo_undivided": "YOLO: `images/`, `labels/`, `classes.txt`",
    "nested": "class folders within class folders",
    "one_class": "one class",
    "loose": "images in no class folder",
    "one_of_them": "a class folder as the data",
    "heic": "photos as `.heic`",
    "misspelt": "a misspelt path",
    "no_train": "`val/` and `test/` without `train/`",
    "other_classes": "classes of val that train lacks",
    "wrong_pattern": "a `wds:` pattern that matches nothing",
    "wrong_wds_folder": "a `wds:` pattern in a folder that is not there",
    "half_a_list": "a list of labels that lacks images",
    "foreign_label": "a list with a class that train lacks",
    "csv_without_images": "a table whose images are elsewhere",
    "csv_without_label": "a table without a label column",
    "csv_strange_split": "a table with splits called `fold1`",
    "csv_of_latin_1": "a table in an old encoding",
    "csv_of_two_machines": "a table of other machines where two images have one name",
    "one_image": "one image as the data",
    "text_file": "a file of another kind",
    "boxes_for_classes": "boxes instead of classes",
    "no_held_out": "nothing to validate on (`@val=0`)",
    "cut_again": "`--val-fraction` where there is a val split",
}


def test_the_tables_of_the_docs_have_every_layout_and_trap() -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    names = [make.__name__ for make in (*LAYOUTS, *DETECTION, *TRAPS)]
    assert sorted([*names, "program"]) == sorted(DOCUMENTED)  # a function's data are in test_programs.py
    for name, cell in DOCUMENTED.items():
        assert f"\n| {cell} |" in page, name
    attempts = re.findall(r"^\| .* \| `excite (?:detect )?train --data \S+` \| (\d+) \|", page, re.MULTILINE)
    assert len(attempts) == len(LAYOUTS) + len(DETECTION) + 1
    assert set(attempts) == {"1"}
