"""`excite predict`: what a checkpoint sees in images."""

import glob
import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from excite.common.files import check_writable, write_text
from excite.common.tables import counted, csv_text, printable, say
from excite.errors import UsageError

if TYPE_CHECKING:
    from excite.train.predictor import Predictor

# Any: rows of a JSON report.


def predict(
    checkpoint: str,
    images: list[str],
    *,
    model: str | None = None,
    top: int = 5,
    batch_size: int = 32,
    out: str | None = None,
    skip_unreadable: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Print the most probable classes of images.

    Args:
        checkpoint: a run directory, a .ckpt, .safetensors, .onnx, .xml or .pt2 file.
        images: files, folders (searched through) and quoted globs.
        model: build this network for the weights instead of the one that the checkpoint names.
        top: how many classes to show.
        batch_size: images at a time.
        out: the file to write, as CSV: a row per image and class shown, with its rank and probability.
        skip_unreadable: go on without images that cannot be read, and count them.
        device: where to run; auto takes a GPU if there is one.
        json: print JSON.

    Examples:
        excite predict runs/eca_resnet20-digits --top 3 photo.png scans/
        excite predict eca_digits.onnx 'scans/*.png' --json
    """
    from excite.train.predictor import open_predictor

    if top < 1 or batch_size < 1:
        raise UsageError("--top and --batch-size must be at least 1")
    if out is not None:
        check_writable(out)
    files = find_images(images)
    predictor, file, _ = open_predictor(checkpoint, model, device)
    rows, unreadable = classify(predictor, files, top, batch_size, skip_unreadable)
    if out is not None:
        write_text(out, csv_text(flat(rows)))
    if json:
        facts = {
            "checkpoint": str(file),
            "model": predictor.card.name,
            "images": len(rows),
            "predictions": rows,
            "out": out,
        }
        print(json_.dumps({**facts, "unreadable": len(unreadable), "unreadable_names": unreadable}, indent=2))
        return
    width = max((len(printable(row["image"])) for row in rows), default=0) + 2
    for row in rows:
        guesses = "  ".join(f"{g['class']} {100 * g['probability']:.1f} %" for g in row["classes"])
        say(f"{printable(row['image']):<{width}}{guesses}")
    if out is not None:
        say(f"a row per image and class: {out}")
    if unreadable:
        say(f"{counted(len(unreadable), 'unreadable image')} passed over: {', '.join(unreadable[:3])}")


def flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per image and class shown."""
    columns = [{"image": row["image"], "rank": i, **g} for row in rows for i, g in enumerate(row["classes"], 1)]
    return [{**row, "probability": round(row["probability"], 6)} for row in columns]


def find_images(patterns: list[str]) -> list[Path]:
    """Return the files that files, folders and globs mean, each once. Raises UsageError for one that means nothing."""
    from excite.data.folder import SUFFIXES, image_files

    files: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = image_files(path)
            if not found:
                raise UsageError(f"folder {pattern} holds no images ({' '.join(sorted(SUFFIXES))})")
        elif path.is_file():
            found = [path]
        else:
            found = sorted(p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file())
            if not found:
                raise UsageError(f"no image {pattern}")
        files.update(dict.fromkeys(found))
    return list(files)


def classify(
    predictor: "Predictor", files: list[Path], top: int, batch_size: int, skip: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (a row per readable image, the names of the others). Raises UnreadableImageError unless `skip`."""
    import torch

    from excite.data.preprocess import Preprocess, UnreadableImageError
    from excite.train.predictor import check_logits

    card = predictor.card
    preprocess = Preprocess.of(card)
    names = card.class_names or [str(i) for i in range(card.num_classes)]
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for start in range(0, len(files), batch_size):
        batch, good = [], []
        for file in files[start : start + batch_size]:
            try:
                batch.append(preprocess.image(file))
                good.append(file)
            except UnreadableImageError as error:
                if not skip:
                    raise
                bad.append(error.name)
        if not batch:
            continue
        logits = predictor(preprocess.normalise(torch.stack(batch)))
        check_logits(logits, card.name)
        probabilities = logits.softmax(1)
        values, classes = probabilities.topk(min(top, len(names)))
        for file, row, indices in zip(good, values.tolist(), classes.tolist(), strict=True):
            guesses = [{"class": names[i], "probability": p} for i, p in zip(indices, row, strict=True)]
            rows.append({"image": str(file), "classes": guesses})
    return rows, bad
