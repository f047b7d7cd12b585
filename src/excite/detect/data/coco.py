"""COCO: annotations/instances_<split>.json beside a folder of images per split (Lin et al., arXiv:1405.0312).

Also as exports have it: <split>/_annotations.coco.json beside its images, or one file for all images.
"""

import json
from collections import Counter
from pathlib import Path

from excite.common.checks import shown
from excite.common.files import check_file
from excite.data.recognise import COCO_FILES
from excite.detect.data.base import Annotation, DetectionDataset, Sample, check_not_empty, clip_box
from excite.detect.data.division import divide
from excite.detect.data.schema import Fields, Id
from excite.detect.data.segments import problem
from excite.errors import ExciteError, UsageError

EXPORTED = "_annotations.coco.json"
PREFIX = "instances_"
FOLDERS = ("images", "data")  # of the images of a set without splits
KINDS = {"images": "image", "categories": "category", "annotations": "annotation"}  # lists, and one of them


def splits(root: Path) -> list[str]:
    """Return the names of the splits that have an annotation file."""
    inside = [p.parent.name for p in root.glob(f"*/{EXPORTED}")]
    return sorted({*inside, *_listed(root)})


def _listed(root: Path) -> dict[str, Path]:
    """Return the files annotations/instances_SPLIT.json, also without that prefix, by their splits."""
    folder = root / "annotations"
    plain = [p for p in folder.glob("*.json") if p.stem.startswith(("train", "val", "test"))]
    return {p.stem.removeprefix(PREFIX): p for p in [*plain, *folder.glob(f"{PREFIX}*.json")]}


def find_split(root: Path, split: str) -> str:
    """Return the full name of a split: "train" finds "train2017". Raises UsageError when there is none or several."""
    known = splits(root)
    matches = [split] if split in known else [s for s in known if s.startswith(split)]
    if len(matches) == 1:
        return matches[0]
    expected = root / "annotations" / f"instances_{split}*.json"
    if not matches and not known and not (root / "annotations").is_dir():
        inside = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise UsageError(
            f"coco:{root}: no folder {root / 'annotations'} and no instances_*.json is there, only {inside}"
        )
    if matches:
        raise UsageError(f"split {split!r} of coco:{root} may be {' or '.join(matches)}; name one")
    have = f"splits there: {', '.join(known)}" if known else "no instances_*.json is there"
    raise UsageError(f"no annotation file {expected}; {have}")


def open_coco(root: Path, split: str) -> DetectionDataset:
    """Read one split. Raises UsageError for a missing file or an empty set, ExciteError for broken contents."""
    undivided = _undivided(root)
    if undivided is not None:
        path = undivided
        folder = next((root / name for name in FOLDERS if (root / name).is_dir()), root)
    else:
        name = find_split(root, split)
        inside = root / name / EXPORTED
        path = inside if inside.is_file() else _listed(root)[name]
        folder = root / name if (root / name).is_dir() else root / "images"
    content = read_json(path)
    categories = _entries(content, "categories", path)
    if len({type(fields.id("id")) for fields in categories}) > 1:
        raise ExciteError(f"{path}: some categories have numbers as ids and some have texts; expected one kind")
    categories.sort(key=lambda fields: fields.id("id"))
    label_of = {fields.id("id"): i for i, fields in enumerate(categories, start=1)}
    samples: dict[Id, Sample] = {}
    present = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    for fields in _entries(content, "images", path):
        file = fields.file("file_name", folder)
        if file.parent != folder:  # a name with folders, which may begin beside the images' own
            file = next((f for f in (file, fields.file("file_name", root)) if f.is_file()), file)
        if not (file.name in present if file.parent == folder else file.is_file()):
            raise ExciteError(f"{fields.where} names {file}, which is missing")
        samples[fields.id("id")] = Sample(fields.id("id"), *fields.size(), path=file)
    skipped: list[str] = []
    for fields in _entries(content, "annotations", path):
        _add(fields, samples, label_of, path, skipped)
    chosen = list(samples.values())
    dataset = DetectionDataset(
        chosen if undivided is None else divide(chosen, split, f"coco:{root}"),
        [fields.text("name") for fields in categories],
        category_ids=[fields.id("id") for fields in categories],  # type: ignore[misc]  # numbers in every set we know
        skipped=skipped,
        has_masks=True,
    )
    return check_not_empty(dataset, str(path))


def _undivided(root: Path) -> Path | None:
    """Return the one annotation file of a set without splits; None where there are splits."""
    files = [*root.glob(f"annotations/{PREFIX}*.json"), *(root / n for n in COCO_FILES if (root / n).is_file())]
    if len(files) != 1 or any(root.glob(f"*/{EXPORTED}")):
        return None
    name = files[0].stem.removeprefix(PREFIX)
    return None if name.startswith(("train", "val", "test")) else files[0]


def read_json(path: Path) -> object:
    """Read a JSON file. Raises UsageError when it is missing, ExciteError with the line when it is broken."""
    check_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no file {path}") from None
    except json.JSONDecodeError as error:
        raise ExciteError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ExciteError(f"{path} is not UTF-8 text: {error}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise ExciteError(f"{path}: broken JSON: {error}") from None
    except OSError as error:
        raise ExciteError(f"cannot read {path}: {error.strerror or error}") from None


def _entries(content: object, key: str, path: Path) -> list[Fields]:
    """Return the entries of a list, each with an id of its own; annotations, which nothing points to, may share one."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ExciteError(f"{path} has no list {key!r}; a COCO file has images, annotations and categories")
    kind = KINDS[key]
    fields = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "id" not in entry:
            raise ExciteError(f"{path}: entry {number} of {key!r} has no 'id'")
        fields.append(Fields(entry, f"{path}: {kind} {shown(entry['id'])}"))
        fields[-1].id("id")
    if key != "annotations" and len({f.id("id") for f in fields}) < len(fields):
        twice = next(id for id, count in Counter(f.id("id") for f in fields).items() if count > 1)
        raise ExciteError(f"{path}: two entries of {key!r} have the id {shown(twice)}")
    return fields


def _add(
    fields: Fields,
    samples: dict[Id, Sample],
    label_of: dict[Id, int],
    path: Path,
    skipped: list[str],
) -> None:
    """Add one annotation to its image, or say in `skipped` why not."""
    category, image = fields.id("category_id"), fields.id("image_id")
    if category not in label_of:
        raise ExciteError(
            f"{fields.where} has category_id {category!r}, which is not among the {len(label_of)} categories of the "
            "file"
        )
    if image not in samples:
        raise ExciteError(f"{fields.where} has image_id {image!r}, and no image has this id")
    sample, box = samples[image], fields.box("bbox", finite=False)
    where = f"{path.name}: annotation {fields.id('id')} on image {image}"
    clipped = clip_box(box, sample.width, sample.height)
    if clipped is None:
        skipped.append(f"{where}: box {list(box)} has no area inside the image")
        return
    segment = fields.entry.get("segmentation")
    wrong = problem(segment, sample.height, sample.width) if segment else None
    if wrong is not None:
        skipped.append(f"{where} {wrong}")
        return
    area = fields.number("area", clipped[2] * clipped[3])
    crowd = bool(fields.number("iscrowd", 0.0))
    sample.annotations.append(Annotation(clipped, label_of[category], area, crowd=crowd, segment=segment or None))
