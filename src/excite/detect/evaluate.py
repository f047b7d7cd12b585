"""A detector and a data set -> results; results -> every figure."""

from collections.abc import Sequence

import torch
from torch import nn

from excite.common.tables import printable
from excite.detect.data.base import DetectionDataset
from excite.detect.loading import eval_loader
from excite.detect.metrics import Metrics, coco_metrics
from excite.detect.results import Result, to_results
from excite.detect.voc_ap import voc_metrics


@torch.no_grad()
def detect(
    detector: nn.Module,
    dataset: DetectionDataset,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    workers: int = 0,
) -> list[Result]:
    """Run a detector over a data set; return its detections in COCO's results format."""
    detector.to(device).eval()
    results: list[Result] = []
    for images, targets in eval_loader(dataset, batch_size=batch_size, workers=workers):
        detections = detector([image.to(device) for image in images])
        for target, detection in zip(targets, detections, strict=True):
            results += to_results(target["image_id"], detection, dataset.category_ids)
    return results


def all_metrics(results: Sequence[Result], dataset: DetectionDataset, *, masks: bool = False) -> Metrics:
    """Return COCO's figures under "box" and "mask", and VOC's (boxes at IoU 0.5) under "voc"."""
    return {**coco_metrics(results, dataset, masks=masks), "voc": voc_metrics(results, dataset)}


def without_curves(metrics: Metrics) -> Metrics:
    """Return the figures without the precision-recall curves (for people and summaries)."""
    return {k: {n: v for n, v in values.items() if n != "curves"} for k, values in metrics.items()}


def show(metrics: Metrics) -> str:
    """Return the figures as text: one line per kind, then a table of categories."""
    lines = []
    for kind in ("box", "mask"):
        if kind in metrics:
            values = metrics[kind]
            shown = "  ".join(
                f"{n} {_percent(values[n])}" for n in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
            )
            lines.append(f"{kind:<6}{shown}")
    voc = metrics["voc"]
    lines.append(f"voc   AP50 {_percent(voc['AP50'])} (area)  {_percent(voc['AP50_11point'])} (11-point)")
    return "\n".join([*lines, "", *_table(metrics)])


def _table(metrics: Metrics) -> list[str]:
    kinds = [k for k in ("box", "mask") if k in metrics]
    columns = [(k, n) for k in kinds for n in ("AP", "AP50", "AP75")]
    voc = {row["class"]: row for row in metrics["voc"]["per_class"]}
    rows = {k: {row["class"]: row for row in metrics[k]["per_class"]} for k in kinds}
    width = max([8, *(len(printable(name)) for name in voc)]) + 2
    titles = [f"{k} {n}" for k, n in columns] + ["voc AP50", "11-point"]
    lines = [f"{'category':<{width}}{'objects':>8}" + "".join(f"{t:>11}" for t in titles)]
    for name, row in voc.items():
        values = [rows[k][name][n] if name in rows[k] else -1.0 for k, n in columns]
        cells = [*values, row["AP50"], row["AP50_11point"]]
        lines.append(f"{printable(name):<{width}}{row['objects']:>8}" + "".join(f"{_percent(v):>11}" for v in cells))
    return lines


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value >= 0 else "-"
