"""Pascal VOC's average precision at one IoU, with its rule for difficult objects (VOC devkit 2007 and 2010).

Detections of a category are taken by falling score. Each is compared with the object it overlaps most: a free ordinary
object at IoU >= 0.5 makes it right and is taken, a taken one makes it wrong, a difficult one makes it count for
nothing. Difficult objects are not among those to be found.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from excite.detect.data.base import Annotation, DetectionDataset
from excite.detect.results import Result

# Any: numbers, rows and curves by name (see metrics.py).


def voc_metrics(results: Sequence[Result], dataset: DetectionDataset, *, iou: float = 0.5) -> dict[str, Any]:
    """Return `AP50` (area under the envelope), `AP50_11point` and both `per_class`; fractions, -1 for none."""
    label_of = {c: i for i, c in enumerate(dataset.category_ids, start=1)}
    by_label: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        by_label[label_of[result["category_id"]]].append(result)
    rows = []
    for label, name in enumerate(dataset.class_names, start=1):
        truth = {s.image_id: [t for t in s.annotations if t.label == label] for s in dataset.samples}
        wanted = sum(not t.ignored for annotations in truth.values() for t in annotations)
        if wanted == 0:
            continue
        right, wrong = match(by_label[label], truth, iou)
        recall, precision = curve(right, wrong, wanted)
        row = {"class": name, "objects": wanted, "AP50": area(recall, precision)}
        rows.append({**row, "AP50_11point": eleven_points(recall, precision)})
    mean = {k: float(np.mean([r[k] for r in rows])) if rows else -1.0 for k in ("AP50", "AP50_11point")}
    return {**mean, "per_class": rows}


def match(
    results: Sequence[Result], truth: dict[int | str, list[Annotation]], iou: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return for detections by falling score whether each is right and whether it is wrong (difficult: neither)."""
    order = sorted(results, key=lambda r: -r["score"])
    taken: dict[int | str, set[int]] = defaultdict(set)
    right, wrong = np.zeros(len(order), bool), np.zeros(len(order), bool)
    for i, result in enumerate(order):
        annotations = truth.get(result["image_id"], [])
        overlaps = overlap(result["bbox"], [a.box for a in annotations])
        best = int(overlaps.argmax()) if len(annotations) else -1
        if best < 0 or overlaps[best] < iou:
            wrong[i] = True
        elif not annotations[best].ignored:
            hit = best not in taken[result["image_id"]]
            right[i], wrong[i] = hit, not hit
            taken[result["image_id"]].add(best)
    return right, wrong


def overlap(box: Sequence[float], others: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the IoU of one box with others, all x, y, width, height; `[n]`."""
    b = np.asarray(others, dtype=np.float64).reshape(-1, 4)
    x, y, w, h = box
    width = np.minimum(x + w, b[:, 0] + b[:, 2]) - np.maximum(x, b[:, 0])
    height = np.minimum(y + h, b[:, 1] + b[:, 3]) - np.maximum(y, b[:, 1])
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    return shared / np.maximum(w * h + b[:, 2] * b[:, 3] - shared, 1e-12)


def curve(right: np.ndarray, wrong: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision after every detection."""
    tp, fp = np.cumsum(right), np.cumsum(wrong)
    return tp / wanted, tp / np.maximum(tp + fp, 1)


def area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the area under the precision envelope (VOC 2010 and later)."""
    r = np.concatenate([[0.0], recall])
    p = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((r[1:] - r[:-1]) * p).sum())


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the mean of the envelope at recalls 0, 0.1, ..., 1 (VOC 2007)."""
    points = [precision[recall >= t].max() if (recall >= t).any() else 0.0 for t in np.arange(11) / 10]
    return float(np.mean(points))
