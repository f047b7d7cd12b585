"""COCO's average precision of a list of results, by torchmetrics on faster-coco-eval."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

from excite.detect.data.base import DetectionDataset, Sample
from excite.detect.data.segments import decode
from excite.detect.results import Result, by_image, stack
from excite.engine.process import quiet_libraries

SUMMARY = {
    "map": "AP", "map_50": "AP50", "map_75": "AP75", "map_small": "APs", "map_medium": "APm", "map_large": "APl",
    "mar_100": "AR100",
}  # fmt: skip
Metrics = dict[str, dict[str, Any]]
"""By kind (box, mask, voc): numbers by name, rows under "per_class", lists by category under "curves": hence Any."""

IouType = Literal["bbox", "segm"]
KINDS: dict[IouType, str] = {"bbox": "box", "segm": "mask"}


def coco_metrics(results: Sequence[Result], dataset: DetectionDataset, *, masks: bool = False) -> Metrics:
    """Evaluate results as COCO does (100 detections per image, crowds and difficult objects ignored).

    Returns, under "box" and (where `masks`) "mask": AP, AP50, AP75, APs, APm, APl, AR100 (fractions; -1 where there is
    nothing to find), "per_class" rows and "curves" (101 recalls by category, precision at IoU 0.5).
    """
    kinds: tuple[IouType, ...] = ("bbox", "segm") if masks else ("bbox",)
    metric = MeanAveragePrecision(
        box_format="xywh",
        iou_type=kinds,
        # By default torchmetrics rounds both to float32, and a recall of exactly 0.3 then misses its threshold.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
        class_metrics=True,
        extended_summary=True,
        backend="faster_coco_eval",
        sync_on_compute=False,  # the results come from all processes already
    )
    metric.warn_on_many_detections = False
    groups = by_image(results)
    label_of = {c: i for i, c in enumerate(dataset.category_ids, start=1)}
    for index, sample in enumerate(dataset.samples):
        predicted = _predicted(groups.get(sample.image_id, []), sample, label_of, masks)
        metric.update([predicted], [_truth(dataset, index, masks)])
    with quiet_libraries():
        values = metric.compute()
    return {KINDS[kind]: _report(values, f"{kind}_" if masks else "", dataset) for kind in kinds}


def _predicted(results: list[Result], sample: Sample, label_of: dict[int, int], masks: bool) -> dict[str, torch.Tensor]:
    entry = {
        "boxes": torch.tensor([r["bbox"] for r in results], dtype=torch.float64).reshape(-1, 4),
        "scores": torch.tensor([r["score"] for r in results], dtype=torch.float64),
        "labels": torch.tensor([label_of[r["category_id"]] for r in results], dtype=torch.int64),
    }
    if masks:
        size = (sample.height, sample.width)
        entry["masks"] = stack([decode(r["segmentation"], *size) for r in results], *size)
    return entry


def _truth(dataset: DetectionDataset, index: int, masks: bool) -> dict[str, torch.Tensor]:
    sample = dataset.samples[index]
    annotations = sample.annotations
    entry = {
        "boxes": torch.tensor([a.box for a in annotations], dtype=torch.float64).reshape(-1, 4),
        "labels": torch.tensor([a.label for a in annotations], dtype=torch.int64),
        "iscrowd": torch.tensor([int(a.ignored) for a in annotations], dtype=torch.int64),
        "area": torch.tensor([a.area for a in annotations], dtype=torch.float64),
    }
    if masks:
        entry["masks"] = stack([dataset.mask(index, a) for a in annotations], sample.height, sample.width)
    return entry


def _report(values: Mapping[str, torch.Tensor], prefix: str, dataset: DetectionDataset) -> dict[str, Any]:
    report: dict[str, Any] = {name: float(values[prefix + key]) for key, name in SUMMARY.items()}
    precision = np.asarray(values[f"{prefix}precision"])  # [IoU, recall, category, area, detections]
    recall = np.asarray(values[f"{prefix}recall"])
    counts = np.bincount(
        [t.label for s in dataset.samples for t in s.annotations if not t.ignored],
        minlength=len(dataset.class_names) + 1,
    )
    report["per_class"], report["curves"] = [], {}
    for column, label in enumerate(np.atleast_1d(np.asarray(values["classes"])).tolist()):
        name = dataset.class_names[label - 1]
        if counts[label] == 0:
            continue
        every = precision[:, :, column, 0, -1]
        row = {"class": name, "objects": int(counts[label])}
        row |= {"AP": _mean(every), "AP50": _mean(every[0]), "AP75": _mean(every[5])}
        row["AR100"] = _mean(recall[:, column, 0, -1])
        report["per_class"].append(row)
        report["curves"][name] = every[0].tolist()
    return report


def _mean(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
