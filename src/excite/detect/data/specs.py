"""A data spec and a split -> a data set."""

from pathlib import Path

from excite.common.pyfile import is_python
from excite.data.archive import unpack
from excite.data.folder import is_junk
from excite.data.recognise import detection_kind, missing_path
from excite.detect.data.base import DetectionDataset
from excite.detect.data.coco import open_coco
from excite.detect.data.shapes import SPLITS, Shapes, shapes_options
from excite.detect.data.voc import open_voc
from excite.detect.data.yolo import open_yolo
from excite.errors import UsageError, near, unknown

FORMS = {
    "shapes": "drawn shapes with boxes and masks: shapes:size=96,most=3",
    "coco:PATH": "annotations/instances_SPLIT.json, or SPLIT/_annotations.coco.json",
    "voc:PATH": "Annotations/*.xml and JPEGImages/, with lists or without",
    "yolo:PATH": "images/ and labels/*.txt with data.yaml",
}
OPENERS = {"coco": open_coco, "voc": open_voc, "yolo": open_yolo}
COUNTS = {"train": 1600, "val": 200, "test": 400}


def open_split(spec: str, split: str, *, masks: bool = False, limit: int | None = None) -> DetectionDataset:
    """Open one split of a data spec: "shapes", "shapes:size=96,most=3", "coco:PATH", "voc:PATH", "yolo:PATH".

    The path of a folder alone stands for what it is seen to be.

    masks: the items carry masks (UsageError where the data has none); limit: use that many of the first images only.
    Raises UsageError for an unknown spec, a missing folder or split, or an empty set; ExciteError for broken files.
    """
    kind, _, rest = _recognised(spec).partition(":")
    dataset: DetectionDataset
    if kind == "shapes":
        dataset = _shapes(rest, split)
    elif kind in OPENERS:
        if not rest:
            raise UsageError(f"data {spec!r} lacks its folder; write {kind}:PATH")
        root = Path(rest).expanduser()
        if not root.is_dir():
            raise UsageError(f"data {spec!r}: no folder {root}")
        dataset = OPENERS[kind](root, split)
    elif is_python(spec):
        raise UsageError(f"data {spec!r}: a program gives data to learn classes; detection data are {', '.join(FORMS)}")
    elif ":" in spec or near(spec, ("shapes",)):
        raise unknown("detection data", spec, FORMS)
    else:
        raise UsageError(f"{missing_path(Path(spec).expanduser())}; detection data are a folder, or {', '.join(FORMS)}")
    dataset.subset(limit)
    if masks:
        _require_masks(dataset, spec)
    dataset.with_masks = masks
    return dataset


def _recognised(spec: str) -> str:
    """Return a spec, or that of a folder or .zip file given instead. Raises UsageError for one without boxes."""
    if spec.partition(":")[0] in ("shapes", *OPENERS):
        return spec
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix.lower() == ".zip":
        path = unpack(path)
    if path.is_file():
        raise UsageError(f"{path} is a file; detection data are a folder, a .zip file, or {', '.join(FORMS)}")
    if not path.is_dir():
        return spec
    inner = [place for place in path.iterdir() if place.is_dir() and not is_junk(place)]
    kind = detection_kind(path)
    if kind is None and len(inner) == 1 and (kind := detection_kind(inner[0])) is not None:
        path = inner[0]  # one folder in another, as archives have it
    if kind is None:
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
        raise UsageError(
            f"{path} has no boxes that are known here, only {inside}; expected annotations/instances_*.json, "
            "_annotations.coco.json, Annotations/*.xml or labels/*.txt"
        )
    return f"{kind}:{path}"


def _shapes(text: str, split: str) -> Shapes:
    options = shapes_options(text)
    if split not in SPLITS:
        raise unknown("split of shapes", split, SPLITS)
    counts = {s: options.pop(s, COUNTS[s]) for s in SPLITS}
    return Shapes(split, count=counts[split], **options)


def _require_masks(dataset: DetectionDataset, spec: str) -> None:
    if not dataset.has_masks:
        raise UsageError(f"data {spec!r} has boxes only, and mask_rcnn needs masks; use faster_rcnn or retinanet")
    for sample in dataset.samples:
        if sample.path is not None and any(t.segment is None for t in sample.annotations):
            raise UsageError(f"data {spec!r}: image {sample.image_id} has an object without a segmentation")
