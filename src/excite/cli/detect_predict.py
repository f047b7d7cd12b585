"""`excite detect predict`: draw what a detector finds in images."""

import json as json_
from pathlib import Path
from typing import Literal

from excite.common.tables import counted, say
from excite.errors import ExciteError, UsageError


def predict(
    checkpoint: str,
    images: list[str],
    *,
    backbone: str | None = None,
    threshold: float = 0.5,
    out: str = "predictions",
    skip_unreadable: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Find objects in images; writes each image with boxes, masks, names and scores, and predictions.json.

    Args:
        checkpoint: a run directory or a .ckpt file of `excite detect train`.
        images: files, folders (searched through) and quoted globs.
        backbone: build the detector on this network instead of the one that the checkpoint names.
        threshold: lowest score that counts.
        out: the folder to write to: pictures and predictions.json.
        skip_unreadable: go on without images that cannot be read, and count them.
        device: where to run; auto takes a GPU if there is one.
        json: print JSON: the detections.

    Examples:
        excite detect predict runs/faster_rcnn-eca_resnet20-shapes street.jpg
        excite detect predict runs/masks --threshold 0.7 'photos/*.jpg' --out drawn
    """
    from excite.checkpoints.reading import read_checkpoint
    from excite.cli.predict import find_images
    from excite.common.files import write_json
    from excite.detect.checkpoint import build
    from excite.detect.predict import ImageRow, predict_images
    from excite.runtime import pick_device

    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold must be in [0, 1], got {threshold}")
    place = pick_device(device)
    files = find_images(images)
    content = read_checkpoint(checkpoint)
    detector = build(content, backbone)
    rows: list[ImageRow] = []
    bad: list[str] | None = [] if skip_unreadable else None
    try:
        for row in predict_images(detector.to(place), files, Path(out), threshold=threshold, unreadable=bad):
            rows.append(row)
            if not json:
                counts = ", ".join(f"{n} {name}" for name, n in row["counts"].items()) or "nothing found"
                say(f"{row['image']}: {counts} -> {row['picture']}", flush=True)
    except ExciteError as error:
        kept = f"; {len(rows)} of {len(files)} images are done, in {out}" if rows else ""
        raise ExciteError(f"{error}; go on without such images with --skip-unreadable{kept}") from None
    finally:
        if rows or bad is not None:  # what was found is not lost with the image that stops the others
            write_json(Path(out) / "predictions.json", rows, indent=None)
    if bad and not json:
        say(f"{counted(len(bad), 'unreadable image')} passed over: {'; '.join(bad[:3])}")
    if json:
        card = content.detector
        facts: dict[str, object] = {"checkpoint": content.source, "kind": card.kind}
        facts["backbone"] = backbone or card.backbone
        written = [str(Path(out) / "predictions.json"), *(str(row["picture"]) for row in rows)]
        facts |= {"unreadable": len(bad or []), "unreadable_names": (bad or [])[:20]}
        facts |= {"images": len(rows), "predictions": rows, "out": out, "files": written}
        print(json_.dumps(facts, indent=2))
