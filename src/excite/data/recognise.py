"""What a folder or file is, by looking at it."""

from pathlib import Path

from excite.data.archive import unpack
from excite.data.folder import SUFFIXES, is_junk, split_folders
from excite.data.hf import SAVED
from excite.errors import UsageError, near

# COCO's boxes for all images of a folder, as Roboflow, Label Studio, FiftyOne and others call them.
COCO_FILES = ("_annotations.coco.json", "result.json", "labels.json", "annotations.json", "coco.json", "instances.json")


def recognise(path: Path) -> str:
    """Return the spec that a folder or file stands for, such as `imagefolder:PATH`.

    Raises UsageError for a path that is not there (with near ones) and for what holds no labelled images.
    """
    if not path.exists():
        raise UsageError(missing_path(path))
    if path.is_file():
        return _file(path)
    names = {entry.name for entry in path.iterdir() if not is_junk(entry)}
    if any((path / name).is_file() for name in SAVED):
        return f"hfds:{path}"
    if any(name.endswith(".parquet") for name in names) or any((path / "data").glob("*.parquet")):
        return f"parquet:{path}"
    if any(name.endswith(".tar") for name in names):
        return f"wds:{path}"
    kind = detection_kind(path)
    if kind is not None:
        raise UsageError(
            f"{path} holds boxes, it is data for detection: excite detect train --data {kind}:{path}; to learn "
            "classes, name a folder of class folders"
        )
    folders = [name for name in names if (path / name).is_dir()]
    tables = sorted(name for name in names if Path(name).suffix.lower() in (".csv", ".tsv"))
    splits = split_folders(path)
    flat = bool(splits) and not any(e.is_dir() and not is_junk(e) for e in splits.get("train", path).iterdir())
    classes = len(folders) > 1 and not splits
    if tables and not classes and (flat or not splits):
        training = [name for name in tables if name.lower().startswith(("train", "label"))]
        if len(tables) > 1 and len(training) != 1:
            raise UsageError(f"{path} holds several tables; name one: csv:{path / tables[0]}")
        return f"csv:{path / (training or tables)[0]}"
    return f"imagefolder:{path}"


def detection_kind(path: Path) -> str | None:
    """Return which layout of boxes a folder has: voc, coco or yolo; None for another."""
    places = [path, *split_folders(path).values()]
    if any((place / COCO_FILES[0]).is_file() for place in places):
        return "coco"
    if any((path / "annotations").glob("instances_*.json")) or any((path / name).is_file() for name in COCO_FILES):
        return "coco"
    if any((path / "annotations" / f"{split}.json").is_file() for split in ("train", "val")):
        return "coco"
    if (path / "data.yaml").is_file() or any(
        (place / "labels").is_dir() and (place / "images").is_dir() for place in places
    ):
        return "yolo"
    if (path / "JPEGImages").is_dir():
        return "voc"
    holders = [*places, *(place / name for place in places for name in ("Annotations", "annotations"))]
    return "voc" if any(any(folder.glob("*.xml")) for folder in holders if folder.is_dir()) else None


def _file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return recognise(unpack(path))
    if suffix in (".csv", ".tsv"):
        return f"csv:{path}"
    if suffix == ".parquet":
        return f"parquet:{path}"
    if suffix == ".tar":
        return f"wds:{path}"
    if suffix in SUFFIXES:
        raise UsageError(f"{path} is one image; data are a folder, a table (.csv), .parquet, .tar or .zip")
    raise UsageError(f"{path} is no data that is known here; expected a folder, a table (.csv), .parquet, .tar or .zip")


def missing_path(path: Path) -> str:
    """Return in words that a path is not there, with near ones that are."""
    parent = path.parent
    if not parent.is_dir():
        return f"no folder or file {path}: there is no folder {parent}"
    close = near(path.name, [entry.name for entry in parent.iterdir()])
    hint = f"; did you mean {' or '.join(str(parent / name) for name in close)}?" if close else ""
    return f"no folder or file {path}{hint}"
