"""Layouts that people have, drawn small: each function makes one below a folder and returns what is to be named."""

import csv
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from imagesets import CLASSES, add, encoded, parquet_set, picture

Maker = Callable[[Path], str]


def draw(file: Path, index: int, size: tuple[int, int] = (20, 16)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(index, size).save(file)
    return file


def classes(root: Path, names: Iterable[str] = CLASSES, each: int = 6, inner: str = "", start: int = 0) -> Path:
    for label, name in enumerate(names):
        for i in range(each):
            draw(root / name / inner / f"{name}{start + i}.png", 1000 * start + 100 * label + i)
    return root


def flat(root: Path) -> str:
    return str(classes(root / "photos"))


def train_only(root: Path) -> str:
    classes(root / "photos" / "train")
    return str(root / "photos")


def train_val(root: Path) -> str:
    classes(root / "photos/train")
    classes(root / "photos/val", start=1, each=3)
    return str(root / "photos")


def train_test(root: Path) -> str:
    classes(root / "photos/Train")
    classes(root / "photos/Test", start=1, each=3)
    return str(root / "photos")


def three_splits(root: Path) -> str:
    classes(root / "photos/training")
    classes(root / "photos/validation", start=1, each=3)
    classes(root / "photos/testing", start=2, each=3)
    return str(root / "photos")


def tiny_imagenet(root: Path) -> str:
    classes(root / "tiny/train", ["n01", "n02"], inner="images")
    rows = []
    for i in range(4):
        draw(root / f"tiny/val/images/val_{i}.JPEG", 500 + i)
        rows.append(f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t0\t9\t9")
    (root / "tiny/val/val_annotations.txt").write_text("\n".join(rows))
    draw(root / "tiny/test/images/test_0.JPEG", 600)
    (root / "tiny/wnids.txt").write_text("n01\nn02\n")
    return str(root / "tiny")


def imagenet(root: Path, table: str) -> str:
    classes(root / "in/train", ["n01", "n02"])
    names = [draw(root / f"in/val/ILSVRC2012_val_{i:08d}.JPEG", 500 + i).name for i in range(4)]
    if table == "LOC_val_solution.csv":
        lines = ["ImageId,PredictionString", *(f"{Path(n).stem},n0{1 + i % 2} 1 2 3 4 " for i, n in enumerate(names))]
    else:
        lines = [f"{n} {i % 2}" for i, n in enumerate(names)]
    (root / "in" / table).write_text("\n".join(lines))
    return str(root / "in")


def imagenet_solution(root: Path) -> str:
    return imagenet(root, "LOC_val_solution.csv")


def imagenet_numbers(root: Path) -> str:
    return imagenet(root, "val.txt")


def table(root: Path, header: list[str], rows: list[list[object]], folder: str = "images") -> str:
    for row in rows:
        draw(root / folder / f"{row[0]}".removeprefix("images/").removesuffix(".png").__add__(".png"), len(str(row)))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return str(root / "labels.csv")


def csv_words(root: Path) -> str:
    return table(root, ["path", "label"], [[f"images/{i}.png", CLASSES[i % 2]] for i in range(12)])


def csv_numbers(root: Path) -> str:
    return table(root, ["id", "target"], [[i, 3 + i % 2] for i in range(12)])


def csv_splits(root: Path) -> str:
    splits = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    return table(root, ["file", "class", "split"], [[f"{i}.png", CLASSES[i % 2], s] for i, s in enumerate(splits)])


def csv_bare(root: Path) -> str:
    return table(root, [], [[f"{i}.png", CLASSES[i % 2]] for i in range(12)])


def spreadsheet(root: Path, first: str, encoding: str = "utf-8", header: str = "Image File;Class Name") -> str:
    """A table as a spreadsheet saves it, with semicolons and the paths of another machine."""
    rows = [f"{first}{CLASSES[i % 2]}\\{i}.png;{CLASSES[i % 2]}" for i in range(12)]
    for i in range(12):
        draw(root / f"photos/{CLASSES[i % 2]}/{i}.png", i)
    text = "\r\n".join([header, *rows, ";", ""])
    (root / "table.csv").write_bytes(text.encode(encoding))
    return str(root / "table.csv")


def csv_spreadsheet(root: Path) -> str:
    return spreadsheet(root, "photos\\", "utf-8-sig")


def csv_other_machine(root: Path) -> str:
    return spreadsheet(root, "C:\\Users\\me\\My photos\\", "utf-16")


def csv_marked(root: Path) -> str:
    return spreadsheet(root, "", header="sep=;\r\nid;breed")


def csv_absolute(root: Path) -> str:
    rows = [[str(root / f"images/{i}.png"), CLASSES[i % 2]] for i in range(12)]
    for i in range(12):
        draw(root / f"images/{i}.png", i)
    (root / "out").mkdir()
    (root / "out/labels.csv").write_text("\n".join(",".join(row) for row in [["path", "label"], *rows]))
    return str(root / "out/labels.csv")


def csv_kaggle(root: Path) -> str:
    rows = [f"{i},{CLASSES[i % 2]}" for i in range(12)]
    for i in range(12):
        draw(root / f"train/{i}.jpg", i)
    for i in range(3):
        draw(root / f"test/{20 + i}.jpg", i)
    (root / "train.csv").write_text("\n".join(["id,breed", *rows]))
    (root / "test.csv").write_text("id\n20\n21\n22\n")
    (root / "sample_submission.csv").write_text("id,breed\n20,cat\n")
    return str(root)


def csv_folder(root: Path) -> str:
    return str(Path(csv_words(root)).parent)


def zipped(root: Path) -> str:
    classes(root / "photos")
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for file in (root / "photos").rglob("*.png"):
            archive.write(file, str(file.relative_to(root)))
            archive.writestr(f"__MACOSX/photos/{file.parent.name}/._{file.name}", b"junk")
    return str(root / "photos.zip")


def with_junk(root: Path) -> str:
    classes(root / "photos")
    (root / "photos/__MACOSX/cat").mkdir(parents=True)
    (root / "photos/__MACOSX/cat/._cat0.png").write_bytes(b"junk")
    (root / "photos/cat/._cat0.png").write_bytes(b"junk")
    (root / "photos/.DS_Store").write_bytes(b"junk")
    (root / "photos/.ipynb_checkpoints").mkdir()
    (root / "photos/cat/Thumbs.db").write_bytes(b"junk")
    (root / "photos/empty").mkdir()
    return str(root / "photos")


def wrapped(root: Path) -> str:
    classes(root / "download/photos")
    return str(root / "download")


def days(root: Path) -> str:
    for day in ("monday", "tuesday"):
        for label, name in enumerate(CLASSES):
            for i in range(4):
                draw(root / "photos" / name / day / f"{i}.png", 100 * label + 10 * len(day) + i)
    return str(root / "photos")


def parquet(root: Path) -> str:
    return str(parquet_set(root / "set", 12))


def parquet_numbers(root: Path) -> str:
    return str(parquet_set(root / "set", 12, names=False))


def parquet_file(root: Path) -> str:
    return str(parquet_set(root / "set", 12) / "train.parquet")


def parquet_plain(root: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"image": pa.array([encoded(i) for i in range(12)]), "class": [CLASSES[i % 2] for i in range(12)]}
    pq.write_table(pa.table(columns), root / "all.parquet")
    return str(root)


def shards(root: Path) -> str:
    for name in ("train-0", "val-0"):
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            for i in range(6):
                add(tar, f"{i}.png", encoded(i + len(name)))
                add(tar, f"{i}.cls", str(i % 2).encode())
    return str(root)


def saved_to_disk(root: Path) -> str:
    import datasets

    rows = {"image": [{"bytes": encoded(i), "path": None} for i in range(12)], "label": [i % 2 for i in range(12)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(root / "set"))
    return str(root / "set")


def turned(root: Path) -> str:
    """Photos of a telephone: turned by EXIF, in capitals, of different sizes."""
    for label, name in enumerate(CLASSES):
        for i in range(6):
            image = picture(100 * label + i, (24 + i, 16))
            exif = Image.Exif()
            exif[274] = 6
            (root / "photos" / name).mkdir(parents=True, exist_ok=True)
            image.save(root / "photos" / name / f"IMG_{i}.JPG", exif=exif)
    return str(root / "photos")


def sixteen_bits(root: Path) -> str:
    for label, name in enumerate(CLASSES):
        for i in range(6):
            (root / "scans" / name).mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(100 * label + i).integers(0, 65536, (16, 20), dtype=np.uint16)
            Image.fromarray(values).save(root / "scans" / name / f"{i}.tif")
    return str(root / "scans")


# Detection.


def boxes(count: int = 10) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [(f"im{i}", (2 + i % 3, 3, 12, 11)) for i in range(count)]


def xml(name: str, box: tuple[int, int, int, int]) -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    thing = f"<object><name>{CLASSES[len(name) % 2]}</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation><size><width>20</width><height>16</height></size>{thing}</annotation>"


def voc(root: Path, annotations: str, images: str, *, lists: bool = False) -> str:
    (root / annotations).mkdir(parents=True, exist_ok=True)
    for i, (name, box) in enumerate(boxes()):
        draw(root / images / f"{name}.png", i)
        (root / annotations / f"{name}.xml").write_text(xml(name, box))
    if lists:
        (root / "ImageSets/Main").mkdir(parents=True)
        names = [name for name, _ in boxes()]
        (root / "ImageSets/Main/train.txt").write_text("\n".join(names[:8]))
        (root / "ImageSets/Main/val.txt").write_text("\n".join(names[8:]))
    return str(root)


def voc_lists(root: Path) -> str:
    return voc(root / "set", "Annotations", "JPEGImages", lists=True)


def voc_without_lists(root: Path) -> str:
    return voc(root / "set", "Annotations", "JPEGImages")


def voc_lower_case(root: Path) -> str:
    return voc(root / "set", "annotations", "images")


def voc_per_split(root: Path) -> str:
    voc(root / "set/train", "", "")
    voc(root / "set/valid", "", "")
    return str(root / "set")


def voc_side_by_side(root: Path) -> str:
    place = voc(root / "set", "", "")
    for i, file in enumerate(sorted((root / "set").glob("*.xml"))):  # half of them without a size, half of size 0
        text = file.read_text()
        size = text[text.index("<size>") : text.index("</size>") + 7]
        zeros = "<size><width>0</width><height>0</height></size>"
        file.write_text(text.replace(size, zeros if i % 2 else ""))
    return place


def coco_content(folder: Path) -> str:
    images = [{"id": i, "file_name": f"{n}.png", "width": 20, "height": 16} for i, (n, _) in enumerate(boxes())]
    found = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": 50, "iscrowd": 0}
        for i, (_, (x1, y1, x2, y2)) in enumerate(boxes())
    ]
    for i, (name, _) in enumerate(boxes()):
        draw(folder / f"{name}.png", i)
    categories = [{"id": i, "name": name} for i, name in enumerate(["things", *CLASSES])]
    return json.dumps({"images": images, "annotations": found, "categories": categories})


def roboflow(root: Path) -> str:
    for split in ("train", "valid", "test"):
        content = coco_content(root / "set" / split)
        (root / "set" / split / "_annotations.coco.json").write_text(content)
    return str(root / "set")


def coco_zipped(root: Path) -> str:
    place = Path(roboflow(root))
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for file in place.rglob("*.*"):
            archive.write(file, str(file.relative_to(root)))
    return str(root / "set.zip")


def coco_undivided(root: Path) -> str:
    content = coco_content(root / "set/images")
    (root / "set/annotations").mkdir()
    (root / "set/annotations/instances_default.json").write_text(content)
    return str(root / "set")


def coco_result(root: Path) -> str:
    content = json.loads(coco_content(root / "set/images"))
    for i, image in enumerate(content["images"]):
        image["file_name"] = f"images\\{image['file_name']}" if i % 2 else f"images/{image['file_name']}"
    (root / "set/result.json").write_text(json.dumps(content))
    return str(root / "set")


def coco_plain(root: Path) -> str:
    for split in ("train", "val"):
        content = coco_content(root / "set" / split)
        (root / "set/annotations").mkdir(exist_ok=True)
        (root / f"set/annotations/{split}.json").write_text(content)
    return str(root / "set")


def yolo_labels(folder: Path) -> None:
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for i, (name, (x1, y1, x2, y2)) in enumerate(boxes()):
        draw(folder / f"images/{name}.png", i)
        line = f"{i % 2} {(x1 + x2) / 40} {(y1 + y2) / 32} {(x2 - x1) / 20} {(y2 - y1) / 16}\n"
        (folder / f"labels/{name}.txt").write_text(line)


def yolo(root: Path) -> str:
    for split in ("train", "valid"):
        yolo_labels(root / "set" / split)
    text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"
    (root / "set/data.yaml").write_text(text)
    return str(root / "set")


def yolo_undivided(root: Path) -> str:
    yolo_labels(root / "set")
    (root / "set/classes.txt").write_text("cat\ndog\n")
    return str(root / "set")
