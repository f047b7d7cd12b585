"""Detections in COCO's results format: one dictionary per object, as JSON."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch

from excite.detect.data.base import DetectionDataset
from excite.detect.data.coco import read_json
from excite.detect.data.schema import Fields
from excite.detect.data.segments import RunLengths, problem, to_json
from excite.errors import ExciteError

Detection = dict[str, torch.Tensor]


class Result(TypedDict):
    """One detected object; bbox: x, y, width, height in pixels; segmentation: run lengths, where masks are known."""

    image_id: int | str
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[RunLengths]


MASK_THRESHOLD = 0.5


def to_results(image_id: int | str, detection: Detection, category_ids: Sequence[int]) -> list[Result]:
    """Turn one image's detections into results.

    detection: `boxes` `[n 4]` (x1 y1 x2 y2), `scores` `[n]`, `labels` `[n]` from 1 and perhaps `masks` `[n 1 h w]`, the
    probabilities of torchvision's Mask R-CNN.
    """
    xyxy = detection["boxes"].detach().cpu().double().numpy()
    masks = detection["masks"][:, 0].cpu().numpy() > MASK_THRESHOLD if "masks" in detection else None
    results = []
    for i, (x1, y1, x2, y2) in enumerate(xyxy.tolist()):
        result: Result = {
            "image_id": image_id,
            "category_id": category_ids[int(detection["labels"][i]) - 1],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(detection["scores"][i]),
        }
        if masks is not None:
            result["segmentation"] = to_json(masks[i])
        results.append(result)
    return results


def read_results(path: Path, dataset: DetectionDataset, *, masks: bool = False) -> list[Result]:
    """Read a results file. Raises ExciteError where an entry does not fit the data set, or lacks a mask (`masks`)."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ExciteError(f"{path}: a results file is a list of detections, this is {type(content).__name__}")
    sizes = {s.image_id: (s.height, s.width) for s in dataset.samples}
    for number, entry in enumerate(content):
        wanted = {"image_id", "category_id", "bbox", "score"} | ({"segmentation"} if masks else set())
        missing = wanted - set(entry if isinstance(entry, dict) else ())
        if missing:
            raise ExciteError(f"{path}: detection {number} has no {', '.join(sorted(missing))}")
        fields = Fields(entry, f"{path}: detection {number}")
        image, category = fields.id("image_id"), fields.id("category_id")
        fields.box("bbox", finite=True)
        fields.number("score")
        if image not in sizes:
            raise ExciteError(f"{fields.where} is on image {image!r}, which the data lacks")
        if category not in dataset.category_ids:
            raise ExciteError(f"{fields.where} has category_id {category!r}, unknown to the data")
        wrong = problem(entry["segmentation"], *sizes[image]) if "segmentation" in entry else None
        if wrong is not None:
            raise ExciteError(f"{fields.where} {wrong}")
    return content


def by_image(results: Iterable[Result]) -> dict[int | str, list[Result]]:
    """Group results by image."""
    groups: dict[int | str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["image_id"], []).append(result)
    return groups


def stack(values: Sequence[np.ndarray], height: int, width: int) -> torch.Tensor:
    """Stack masks `[h w]` into `[n h w]`, also when there is none."""
    if not values:
        return torch.zeros((0, height, width), dtype=torch.bool)
    return torch.from_numpy(np.stack(values)).bool()
