"""YOLO's text labels: images/NAME.jpg beside labels/NAME.txt, with a data.yaml that names classes and splits.

A line is `class x y width height` (centre, size, in shares of the image) or an outline: `class x1 y1 x2 y2 x3 y3 ...`.
"""

import math
from pathlib import Path

import yaml

from excite.common.checks import shown
from excite.data.folder import SUFFIXES, is_junk, split_folders
from excite.data.preprocess import UnreadableImageError, stored_size
from excite.detect.data.base import Annotation, DetectionDataset, Sample, check_not_empty, clip_box
from excite.detect.data.division import divide
from excite.detect.data.segments import problem
from excite.errors import ExciteError, UsageError

LARGEST = 2**24  # bytes of a text file


def open_yolo(root: Path, split: str) -> DetectionDataset:
    """Read one split. Raises UsageError for a missing folder, list or split, ExciteError for broken contents.

    Class names come from data.yaml (`names`) or classes.txt. Splits are those of data.yaml, else folders named train,
    val (valid) and test; where there is none a fifth of the images is val.
    """
    settings = _settings(root)
    names = _names(root, settings)
    files = _images(root, settings, split)
    skipped: list[str] = []
    samples = [_sample(file, names, skipped) for file in files]
    outlines = [a.segment is not None for sample in samples for a in sample.annotations]
    dataset = DetectionDataset(samples, names, skipped=skipped, has_masks=bool(outlines) and all(outlines))
    return check_not_empty(dataset, f"split {split!r} of yolo:{root}")


def _settings(root: Path) -> dict[object, object]:
    file = next((root / name for name in ("data.yaml", "data.yml", "dataset.yaml") if (root / name).is_file()), None)
    if file is None:
        return {}
    try:
        content = yaml.safe_load(_text(file))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ExciteError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ExciteError(f"{file} is not a mapping with names, train and val")
    return content


def _names(root: Path, settings: dict[object, object]) -> list[str]:
    values = settings.get("names")
    if isinstance(values, dict) and all(isinstance(key, int) for key in values):
        values = [values.get(i, f"class {i}") for i in range(max(values, default=-1) + 1)]
    listed = root / "classes.txt"
    if values is None and listed.is_file():
        values = [line.strip() for line in _text(listed).splitlines() if line.strip()]
    if not isinstance(values, list) or not values or not all(isinstance(v, str | int | float) for v in values):
        raise UsageError(f"yolo:{root}: no names of the classes; expected `names: [cat, dog]` in {root / 'data.yaml'}")
    return [str(value) for value in values]


def _images(root: Path, settings: dict[object, object], split: str) -> list[Path]:
    """Return the images of a split, sorted."""
    keys = ("val", "valid", "validation") if split == "val" else (split,)
    named = next((settings[key] for key in keys if settings.get(key)), None)
    if named is not None:
        base = root / str(settings.get("path") or "")
        files: list[Path] = []
        for text in named if isinstance(named, list) else [named]:
            files += _listed(root, base, str(text))
        return sorted(files)
    places = {name: folder for name, folder in split_folders(root).items() if _below(folder)}
    inner = split_folders(root / "images") if (root / "images").is_dir() else {}
    places |= {name: folder for name, folder in inner.items() if _below(folder)}
    if places or settings.get("train"):
        folder = next((place for name, place in places.items() if name == split), None)
        if folder is None:
            have = ", ".join(places) or "train"
            raise UsageError(f"yolo:{root} has no split {split!r}; splits there: {have}")
        return _below(folder)
    folder = root / "images"
    if not folder.is_dir():
        inside = ", ".join(sorted(p.name for p in root.iterdir() if not is_junk(p))) or "nothing"
        raise UsageError(f"yolo:{root}: no folder {folder}; there is {inside}")
    return divide(_below(folder), split, f"yolo:{root}")


def _listed(root: Path, base: Path, text: str) -> list[Path]:
    """Return the images of a folder, or of a file that lists them, as data.yaml names it."""
    # Exports name ../train/images whatever folder data.yaml lies in, so what leads out is also looked for inside.
    inside = Path(*(part for part in Path(text).parts if part not in ("..", ".", "/")))
    place = next((p for p in (base / text, root / text, root / inside) if p.exists()), None)
    if place is None:
        raise UsageError(f"{root / 'data.yaml'} names {text}, which is missing: no {root / inside}")
    if place.is_dir():
        return _below(place)
    files = [line.strip() for line in _text(place).splitlines() if line.strip()]
    return [place.parent / name for name in files]


def _below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not is_junk(p))


def _sample(file: Path, names: list[str], skipped: list[str]) -> Sample:
    try:
        width, height = stored_size(file)
    except UnreadableImageError as error:
        raise ExciteError(f"image {file} cannot be read: {error.reason}") from None
    sample = Sample(file.stem, width, height, path=file)
    parts = list(file.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts).with_suffix(".txt")
    if not labels.is_file():
        return sample  # an image without objects needs no file
    for number, line in enumerate(_text(labels).splitlines(), 1):
        if line.strip():
            annotation = _annotation(line.split(), f"{labels}, line {number}", sample, names, skipped)
            if annotation is not None:
                sample.annotations.append(annotation)
    return sample


def _annotation(
    words: list[str], where: str, sample: Sample, names: list[str], skipped: list[str]
) -> Annotation | None:
    """Read one line, or say in `skipped` why it is left out. Raises ExciteError for one that is none."""
    try:
        number, values = int(float(words[0])), [float(word) for word in words[1:]]
    except (ValueError, OverflowError):
        raise ExciteError(f"{where}: {shown(' '.join(words))} is not a class and numbers") from None
    if not 0 <= number < len(names):
        raise ExciteError(f"{where}: class {number} is not among the {len(names)} of data.yaml")
    if not all(map(math.isfinite, values)) or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
        raise ExciteError(f"{where}: {len(values)} numbers; expected x y width height, or the points of an outline")
    scaled = [v * (sample.height if i % 2 else sample.width) for i, v in enumerate(values)]
    segment = None
    if len(values) == 4:
        x, y, w, h = scaled
        corner = (x - w / 2, y - h / 2, w, h)
    else:
        segment = [scaled]
        corner = (min(scaled[::2]), min(scaled[1::2]), 0.0, 0.0)
        corner = (*corner[:2], max(scaled[::2]) - corner[0], max(scaled[1::2]) - corner[1])
    box = clip_box(corner, sample.width, sample.height)
    wrong = problem(segment, sample.height, sample.width) if segment else None
    if box is None or wrong is not None:
        skipped.append(f"{where}: {names[number]} {wrong or 'box has no area inside the image'}")
        return None
    return Annotation(box, number + 1, box[2] * box[3], segment=segment)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST:
            raise ExciteError(f"{file} is too large for a list of labels")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExciteError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from None
