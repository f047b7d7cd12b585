"""COCO: annotations/instances_<split>.json beside a folder of images per split (Lin et al., arXiv:1405.0312)."""

import json
from pathlib import Path
from typing import Any

from excite.detect.data.base import Annotation, DetectionDataset, Sample, check_not_empty, clip_box
from excite.detect.data.segments import problem
from excite.errors import ExciteError, UsageError, near


def splits(root: Path) -> list[str]:
    """Return the names of the splits that have an annotation file."""
    return sorted(p.stem.removeprefix("instances_") for p in (root / "annotations").glob("instances_*.json"))


def find_split(root: Path, split: str) -> str:
    """Return the full name of a split: "train" finds "train2017". Raises UsageError when there is none or several."""
    known = splits(root)
    matches = [split] if split in known else [s for s in known if s.startswith(split)]
    if len(matches) == 1:
        return matches[0]
    expected = root / "annotations" / f"instances_{split}*.json"
    if matches:
        raise UsageError(f"split {split!r} of coco:{root} may be {' or '.join(matches)}; name one")
    have = f"splits there: {', '.join(known)}" if known else "no instances_*.json is there"
    raise UsageError(f"no annotation file {expected}; {have}")


def open_coco(root: Path, split: str) -> DetectionDataset:
    """Read one split. Raises UsageError for a missing file or an empty set, ExciteError for broken contents."""
    name = find_split(root, split)
    path = root / "annotations" / f"instances_{name}.json"
    content = read_json(path)
    folder = root / name if (root / name).is_dir() else root / "images"
    categories = sorted(_entries(content, "categories", path), key=lambda c: c["id"])
    label_of = {c["id"]: i for i, c in enumerate(categories, start=1)}
    samples: dict[object, Sample] = {}
    present = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    for image in _entries(content, "images", path):
        file = folder / _value(image, "file_name", path, "image")
        if file.name not in present:
            raise ExciteError(f"{path}: image {image['id']} names {file}, which is missing")
        size = (_value(image, "width", path, "image"), _value(image, "height", path, "image"))
        samples[image["id"]] = Sample(image["id"], *size, path=file)
    skipped: list[str] = []
    for annotation in _entries(content, "annotations", path):
        _add(annotation, samples, label_of, path, skipped)
    dataset = DetectionDataset(
        list(samples.values()),
        [_value(c, "name", path, "category") for c in categories],
        category_ids=[c["id"] for c in categories],
        skipped=skipped,
        has_masks=True,
    )
    return check_not_empty(dataset, str(path))


def read_json(path: Path) -> object:
    """Read a JSON file. Raises UsageError when it is missing, ExciteError with the line when it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no file {path}") from None
    except json.JSONDecodeError as error:
        raise ExciteError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ExciteError(f"{path} is not UTF-8 text: {error}") from None


Entry = dict[str, Any]  # of a JSON file: Any, because what is used is checked where it is used


def _entries(content: object, key: str, path: Path) -> list[Entry]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ExciteError(f"{path} has no list {key!r}; a COCO file has images, annotations and categories")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "id" not in entry:
            raise ExciteError(f"{path}: entry {number} of {key!r} has no 'id'")
    return entries


def _value(entry: Entry, key: str, path: Path, kind: str) -> Any:
    if key not in entry:
        close = near(key, entry)
        raise ExciteError(f"{path}: {kind} {entry['id']} has no {key!r}{f' (but {close[0]!r})' if close else ''}")
    return entry[key]


def _add(
    annotation: Entry,
    samples: dict[object, Sample],
    label_of: dict[object, int],
    path: Path,
    skipped: list[str],
) -> None:
    """Add one annotation to its image, or say in `skipped` why not."""
    category, image = (_value(annotation, k, path, "annotation") for k in ("category_id", "image_id"))
    if category not in label_of:
        raise ExciteError(
            f"{path}: annotation {annotation['id']} has category_id {category!r}, which is not among the "
            f"{len(label_of)} categories of the file"
        )
    if image not in samples:
        raise ExciteError(f"{path}: annotation {annotation['id']} has image_id {image!r}, and no image has this id")
    sample, box = samples[image], _value(annotation, "bbox", path, "annotation")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        raise ExciteError(f"{path}: annotation {annotation['id']} has bbox {box!r}; expected [x, y, width, height]")
    where = f"{path.name}: annotation {annotation['id']} on image {image}"
    clipped = clip_box((box[0], box[1], box[2], box[3]), sample.width, sample.height)
    if clipped is None:
        skipped.append(f"{where}: box {box} has no area inside the image")
        return
    segment = annotation.get("segmentation")
    wrong = problem(segment, sample.height, sample.width) if segment else None
    if wrong is not None:
        skipped.append(f"{where} {wrong}")
        return
    area = float(annotation.get("area", clipped[2] * clipped[3]))
    sample.annotations.append(
        Annotation(clipped, label_of[category], area, crowd=bool(annotation.get("iscrowd", 0)), segment=segment or None)
    )
