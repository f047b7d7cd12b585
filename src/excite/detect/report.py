"""What a test leaves: results JSON, metrics JSON, precision-recall curves, pictures."""

from pathlib import Path

import torch
from torch import nn

from excite.common.files import safe_name, write_json
from excite.detect.data.base import DetectionDataset
from excite.detect.draw import draw_curves, draw_detections, save_image
from excite.detect.evaluate import all_metrics, detect, without_curves
from excite.detect.metrics import Metrics
from excite.detect.results import Result, by_image


def write_report(
    detector: nn.Module,
    dataset: DetectionDataset,
    folder: Path,
    *,
    name: str,
    pictures: int = 12,
    threshold: float = 0.5,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Metrics:
    """Run a detector over a data set and write what came out; returns the figures (see `all_metrics`).

    Writes `results_NAME.json` (COCO's format), `metrics_NAME.json`, `pr_NAME.png` and, for the first `pictures` images,
    `pictures/NAME_*.jpg`.
    """
    results = detect(detector, dataset, device=device, workers=workers)
    write_json(folder / f"results_{name}.json", results, indent=None)
    return write_figures(results, dataset, folder, name=name, pictures=pictures, threshold=threshold)


def write_figures(
    results: list[Result],
    dataset: DetectionDataset,
    folder: Path,
    *,
    name: str,
    pictures: int,
    threshold: float = 0.5,
) -> Metrics:
    """Evaluate results and write figures, curves and pictures; returns the figures without the curves."""
    metrics = all_metrics(results, dataset, masks=dataset.with_masks)
    write_json(folder / f"metrics_{name}.json", metrics, indent=None)
    draw_curves(metrics, folder / f"pr_{name}.png")
    names = dict(zip(dataset.category_ids, dataset.class_names, strict=True))
    groups = by_image(results)
    taken: set[str] = set()
    for index in range(min(pictures, len(dataset))):
        sample = dataset.samples[index]
        detections = groups.get(sample.image_id, [])
        picture = draw_detections(dataset.image(index), detections, names, threshold=threshold)
        save_image(picture, folder / "pictures" / f"{safe_name(f'{name}_{sample.image_id}', taken)}.jpg")
    return without_curves(metrics)
