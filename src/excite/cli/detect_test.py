"""`excite detect test`: how good a detector, or a results file, is on a data set."""

import json as json_
from pathlib import Path
from typing import Any, Literal

from excite.common.files import check_writable
from excite.errors import UsageError

# Any: rows of a JSON report, and a detector imported when the command runs.


def check(
    checkpoint: str | None = None,
    *,
    results: str | None = None,
    backbone: str | None = None,
    data: str | None = None,
    split: str | None = None,
    masks: bool = False,
    limit: int | None = None,
    pictures: int = 12,
    threshold: float = 0.5,
    workers: int = 0,
    out: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Test a detector: COCO's AP of boxes and masks, VOC's AP50, a table of categories, curves and pictures.

    Args:
        checkpoint: a run directory or a .ckpt file; left out with --results.
        results: evaluate this results file (COCO's format) instead of running a detector; needs --data.
        backbone: build the detector on this network instead of the one that the checkpoint names.
        data: data spec; by default the one that the run was trained on.
        split: which split; by default the run's validation split (val with --results).
        masks: with --results, evaluate its masks too.
        limit: use that many images only.
        pictures: how many images to draw the detections on.
        threshold: lowest score that is drawn.
        workers: processes that read images.
        out: the folder to write to: results, metrics, curves and pictures; by default the run's (else the file's).
        device: where to run; auto takes a GPU if there is one.
        json: print JSON.

    Examples:
        excite detect test runs/faster_rcnn-eca_resnet20-shapes
        excite detect test --results found.json --data coco:PATH --masks
    """
    from excite.runtime import pick_device

    if (checkpoint is None) == (results is None):
        raise UsageError("give a checkpoint to test, or --results FILE.json, and not both")
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold must be in [0, 1], got {threshold}")
    drawing: dict[str, Any] = {"pictures": pictures, "threshold": threshold}
    if results is not None:
        if device == "cuda":
            raise UsageError("--results runs no detector, so --device cuda has no effect; leave it out")
        facts, metrics = _results(Path(results), data, split or "val", masks, limit, out, drawing)
    else:
        drawing |= {"workers": workers, "device": pick_device(device)}
        facts, metrics = _checkpoint(str(checkpoint), backbone, data, split, limit, out, drawing)
    if json:
        print(json_.dumps({**facts, **metrics}, indent=2))
        return
    from excite.detect.evaluate import show

    print(f"{facts['checkpoint'] or facts['results']} on {facts['data']}, {facts['split']}: {facts['images']} images")
    print(show(metrics))
    print(f"\nfiles  {facts['out']}: results, metrics, pr (curves) and pictures of {facts['split']}")


def _results(
    file: Path, data: str | None, split: str, masks: bool, limit: int | None, out: str | None, drawing: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    from excite.detect.data import open_split
    from excite.detect.report import write_figures
    from excite.detect.results import read_results

    if data is None:
        raise UsageError("--results needs --data SPEC: a results file does not say what it is about")
    dataset = open_split(data, split, masks=masks, limit=limit)
    found = read_results(file, dataset, masks=masks)
    folder = Path(out) if out else file.parent
    check_writable(folder, folder=True)
    metrics = write_figures(found, dataset, folder, name=split, **drawing)
    facts = {"checkpoint": None, "results": str(file), "data": data, "split": split}
    return {**facts, "images": len(dataset), "out": str(folder)}, metrics


def _checkpoint(
    checkpoint: str,
    backbone: str | None,
    data: str | None,
    split: str | None,
    limit: int | None,
    out: str | None,
    drawing: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    from excite.checkpoints.reading import home, locate
    from excite.detect.checkpoint import check_classes, load_detector
    from excite.detect.data import open_split
    from excite.detect.report import write_report

    detector, config = load_detector(checkpoint, backbone)
    card: Any = detector.excite_card
    spec = data or config.get("data")
    if not spec:
        raise UsageError(f"{checkpoint} does not say what it was trained on; give --data SPEC")
    chosen = split or config.get("val_split", "val")
    if chosen == "none":
        raise UsageError(f"{checkpoint} was trained without a validation split; give --split")
    dataset = open_split(spec, chosen, masks=card.kind == "mask_rcnn", limit=limit)
    check_classes(card, dataset.class_names, checkpoint, spec)
    file = locate(checkpoint)
    folder = Path(out) if out else home(file)
    check_writable(folder, folder=True)
    metrics = write_report(detector, dataset, folder, name=chosen, **drawing)
    facts = {"checkpoint": str(file), "results": str(folder / f"results_{chosen}.json"), "data": spec}
    facts |= {"kind": card.kind, "backbone": card.backbone, "split": chosen, "skipped": dataset.skipped}
    return {**facts, "images": len(dataset), "out": str(folder)}, metrics
