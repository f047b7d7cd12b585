"""A data spec and a split -> a data set."""

from pathlib import Path

from excite.detect.data.base import DetectionDataset
from excite.detect.data.coco import open_coco
from excite.detect.data.shapes import SPLITS, Shapes, shapes_options
from excite.detect.data.voc import open_voc
from excite.errors import UsageError, unknown

KINDS = ("shapes", "coco:PATH", "voc:PATH")
COUNTS = {"train": 1600, "val": 200, "test": 400}


def open_split(spec: str, split: str, *, masks: bool = False, limit: int | None = None) -> DetectionDataset:
    """Open one split of a data spec: "shapes", "shapes:size=96,most=3", "coco:PATH" or "voc:PATH".

    masks: the items carry masks (UsageError where the data has none); limit: use that many of the first images only.
    Raises UsageError for an unknown spec, a missing folder or split, or an empty set; ExciteError for broken files.
    """
    kind, _, rest = spec.partition(":")
    dataset: DetectionDataset
    if kind == "shapes":
        dataset = _shapes(rest, split)
    elif kind in ("coco", "voc"):
        if not rest:
            raise UsageError(f"data {spec!r} lacks its folder; write {kind}:PATH")
        root = Path(rest).expanduser()
        if not root.is_dir():
            raise UsageError(f"data {spec!r}: no folder {root}")
        dataset = open_coco(root, split) if kind == "coco" else open_voc(root, split)
    else:
        raise unknown("detection data", spec, KINDS)
    dataset.subset(limit)
    if masks:
        _require_masks(dataset, spec)
    dataset.with_masks = masks
    return dataset


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
