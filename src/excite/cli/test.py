"""`excite test`: how good a checkpoint is on a data set."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from excite.common.files import check_writable, write_text
from excite.common.tables import counted, csv_text, printable, say
from excite.errors import UsageError

if TYPE_CHECKING:
    from excite.data.bundle import DataBundle, Images
    from excite.train.evaluate import Evaluation

# Any: entries of a JSON report.


def check(
    checkpoint: str,
    *,
    data: str | None = None,
    split: Literal["test", "val", "train"] = "test",
    model: str | None = None,
    batch_size: int = 100,
    limit: int | None = None,
    out: str | None = None,
    skip_unreadable: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Test a checkpoint: top-1, top-5, macro F1, a table per class, the confusion matrix as PNG (up to 100 classes).

    Args:
        checkpoint: a run, a .ckpt, .safetensors, .onnx, .xml or .pt2 file, or weights within excite (NETWORK.DATA).
        data: data spec; by default the one that the run was trained on.
        split: which split; the held-out images are both val and test where the data have one such split only.
        model: build this network for the weights instead of the one that the checkpoint names.
        batch_size: images at a time.
        limit: use that many images only.
        out: the folder to write to: confusion.png, and predictions.csv with a row per image; by default confusion.png
            alone, into the run's, else the checkpoint's folder.
        skip_unreadable: go on without images that cannot be read, and count them.
        device: where to run; auto takes a GPU if there is one.
        json: print JSON.

    Examples:
        excite test runs/eca_resnet20-digits
        excite test eca50.safetensors --data imagefolder:PATH --limit 1000 --json
    """
    from excite.checkpoints.reading import home
    from excite.data.specs import RunOf, open_run_data
    from excite.train.evaluate import draw_confusion, evaluate
    from excite.train.predictor import open_predictor

    if batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
    predictor, file, config = open_predictor(checkpoint, model, device)
    run = RunOf(str(file), predictor.card, config.get("data"))
    folder = Path(out) if out else home(file)
    if out or predictor.card.num_classes <= 100:
        check_writable(folder, folder=True)
    bundle = open_run_data([run], data, **{f"limit_{split}": limit})
    images, split_name = bundle.split(split)
    names = bundle.class_names
    result = evaluate(predictor, images, batch_size=batch_size, skip=skip_unreadable)
    picture = None
    if len(names) <= 100:
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / "confusion.png"
        draw_confusion(result, names, picture)
    files = [picture] if picture else []
    if out:
        files.append(write_text(folder / "predictions.csv", csv_text(result.table(names))))
    facts: dict[str, Any] = {
        "checkpoint": str(file),
        "model": predictor.card.name,
        "data": bundle.spec,
        "split": split_name,
    }
    facts["note"] = _optimism(file, bundle, images)
    _report(facts, result, names, files, json)


def _optimism(file: Path, bundle: "DataBundle", images: "Images") -> str | None:
    """Say where a score flatters: the best epoch, measured on the images that it was chosen on."""
    if file.name != "best.ckpt" or images is not bundle.val:
        return None
    words = f"{file.name} is the best epoch on these images, so its score is optimistic"
    return words if bundle.selects else f"{words}; the result of the run is that of last.ckpt"


def _report(facts: dict[str, Any], result: "Evaluation", names: list[str], files: list[Path], as_json: bool) -> None:
    table, confused = result.per_class(names), result.confusions(names)
    if as_json:
        numbers = {"images": result.images, "top1": result.top1, "top5": result.top5, "loss": result.loss}
        numbers |= {"macro_f1": result.macro_f1, "balanced_accuracy": result.balanced_accuracy}
        unreadable = {"unreadable": len(result.skipped), "unreadable_names": result.skipped[:20]}
        more = {"per_class": table, "confused": confused, "confusion": result.confusion.tolist()}
        written = {"out": str(files[0].parent) if files else None, "files": [str(file) for file in files]}
        print(json_.dumps({**facts, **numbers, **unreadable, **more, **written}, indent=2))
        return
    width = max(5, *(len(printable(name)) for name in names)) + 2
    say(f"{facts['model']} ({facts['checkpoint']}) on {facts['data']} {facts['split']}")
    say()
    say(f"{'class':<{width}}{'images':>7}{'accuracy':>10}{'precision':>11}  most often taken for")
    for row in table:
        say(
            f"{printable(row['class']):<{width}}{row['images']:>7}{_percent(row['accuracy']):>10}{_percent(row['precision']):>11}"
            f"  {row['taken_for'] or '-'}"
        )
    say()
    say(
        f"top-1 {100 * result.top1:.2f} %   top-5 {100 * result.top5:.2f} %   loss {result.loss:.4f}   "
        f"{result.images} images"
    )
    say(f"macro F1 {100 * result.macro_f1:.2f} %   balanced accuracy {100 * result.balanced_accuracy:.2f} %")
    if confused:
        pairs = (f"{p['class']} taken for {p['taken_for']} {p['count']} of {p['images']}" for p in confused)
        say(f"most confused: {', '.join(pairs)}")
    if facts["note"]:
        say(f"note: {facts['note']}")
    if result.skipped:
        say(f"{counted(len(result.skipped), 'unreadable image')} passed over: {', '.join(result.skipped[:3])}")
    for file in files:
        say(f"{'confusion matrix' if file.suffix == '.png' else 'a row per image'}: {file}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
