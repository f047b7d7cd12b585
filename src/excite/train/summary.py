"""What a run says at its end, on the terminal and as summary.json."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from excite.common.files import write_json
from excite.common.holdout import read_cut
from excite.common.pyfile import is_python
from excite.common.tables import counted, printable
from excite.data.bundle import WORDS
from excite.data.specs import GIVEN
from excite.engine.run import RunDirectory
from excite.inspect.trace import trace_model
from excite.runtime import pick_device
from excite.train.config import TrainConfig

# Any: entries of a summary: texts, numbers and lists.

MACS = "multiply-accumulates of convolutions and matrix products for one image (torch flop counter / 2)"


def count(model: nn.Module, size: int, channels: int = 3) -> tuple[int, int]:
    """Return (parameters, MACs for one image of size x size)."""
    trace = trace_model(model, (1, channels, size, size))
    return sum(p.numel() for p in model.parameters()), trace.macs


def header(config: TrainConfig, directory: RunDirectory, rate: str | None = None) -> str:
    """Return what a run says before its work: the network, the recipe, where it runs, where its files go.

    rate: where the learning rate is from.
    """
    device = pick_device(config.device) + (" (auto)" if config.device == "auto" else "")
    how = f"batches of {config.batch_size}, {config.optimizer}, lr {config.lr}" + (f" ({rate})" if rate else "")
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}, {how}"
    name = f"{config.model} + {config.attach}" if config.attach else config.model
    recipe = "options alone" if config.recipe == "auto" else f"recipe {config.recipe}"
    return printable(f"{name} on {config.data}; {recipe}: {epochs}; device {device}; run {directory.planned}")


def summarise(
    rows: list[dict[str, float]], score: Callable[[dict[str, float]], float | None], **facts: Any
) -> dict[str, Any]:
    """Return the summary: `facts`, the run's result (`top1`, ...), and the best and last epoch of the history.

    score: what the best epoch has most of; facts: among others `split`, what is watched after every epoch, and
    `selects`. The result is the best epoch's where that is chosen on a split which is not the test split (`selects`),
    else the last one's. checkpoint: its network.
    """
    best, last = max(rows, key=lambda row: score(row) or 0), rows[-1]
    split, selects = WORDS[facts["split"]], facts["selects"]
    result = best if selects else last
    seconds = sum(row["seconds"] for row in rows)
    training = [row for row in rows if row["images_per_s"]]
    return {
        **facts,
        "macs_convention": MACS,
        "epochs": int(last["epoch"]),
        "result": f"{'best' if selects else 'last'} epoch on the {split} split",
        "checkpoint": f"checkpoints/{'best' if selects else 'last'}.ckpt",
        "top1": result["val_top1"],
        "top5": result["val_top5"],
        "macro_f1": result.get("val_macro_f1"),
        "balanced_accuracy": result.get("val_balanced_accuracy"),
        "best": f"best epoch on the {split} split" + ("" if selects else ": optimistic"),
        "best_epoch": int(best["epoch"]),
        "best_top1": best["val_top1"],
        "best_top5": best["val_top5"],
        "last_top1": last["val_top1"],
        "last_top5": last["val_top5"],
        "seconds": round(seconds, 2),
        "images_per_s": round(sum(r["images_per_s"] for r in training) / max(len(training), 1), 1),
        "waiting": round(sum(r["waiting"] for r in rows) / len(rows), 4),
    }


def _others(summary: dict[str, Any]) -> str:
    """What else there is to say of the scores, so that nobody takes a flattering one for the result."""
    if summary["selects"]:
        last = f"epoch {summary['best_epoch']}, last {100 * summary['last_top1']:.2f} %"
        return f"{last}; the test split was not touched: excite test measures on it"
    best = f"best.ckpt, epoch {summary['best_epoch']}, {100 * summary['best_top1']:.2f} %"
    return f"{best}, is chosen on these images: optimistic"


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write summary.json."""
    write_json(path / "summary.json", summary)


def show(summary: dict[str, Any]) -> str:
    """Return the summary for people."""
    run = summary["run"]
    rows = [
        ("model", f"{summary['model']}, {summary['parameters']:,} parameters"),
        (
            "MACs",
            f"{summary['macs'] / 1e6:,.2f} M for {summary['size']}x{summary['size']} ({MACS.partition(' for ')[0]})",
        ),
        (
            "top-1 / top-5",
            f"{100 * summary['top1']:.2f} % / {100 * summary['top5']:.2f} % on {summary['val_images']} images: "
            f"{summary['result']} ({_others(summary)})",
        ),
        *(
            [
                (
                    "macro F1",
                    f"{100 * summary['macro_f1']:.2f} %; balanced accuracy {100 * summary['balanced_accuracy']:.2f} %",
                )
            ]
            if summary["macro_f1"] is not None  # runs of earlier versions have none
            else []
        ),
        (
            "speed",
            f"{summary['images_per_s']:.0f} images/s; {summary['seconds']:.1f} s and {summary['data_seconds']:.1f} s "
            f"to prepare data; waiting for data {100 * summary['waiting']:.1f} % of training",
        ),
    ]
    if summary["unreadable"]:
        names = ", ".join(summary["unreadable_names"][:3])
        rows.append(("unreadable", f"{counted(summary['unreadable'], 'image')} passed over: {names}"))
    parts = ("config.yaml", "metrics.csv", "curves.png", "summary.json", "checkpoints", "tensorboard", "samples")
    there = (f"{part}/" if (Path(run) / part).is_dir() else part for part in parts if (Path(run) / part).exists())
    rows.append(("files", f"{run}: {' '.join(there)}"))
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{text}" for name, text in rows]
    place, samples = shlex.quote(run), shlex.quote(f"{run}/samples")
    data, epochs = str(summary["data"]), 2 * summary["epochs"]
    named = f" --data {shlex.quote(data)}" if is_python(read_cut(data)[0]) else ""  # what a file names is not run
    again = f"  excite train --resume {place}{named} --epochs {epochs}"
    if data.startswith(GIVEN):
        named, again = " --data SPEC", f"  excite.fit(MODEL, DATA, resume={run!r}, epochs={epochs})"
    lines += ["", "next:", f"  excite test {place}{named}", f"  excite predict {place} {samples}", again]
    return "\n".join(lines)
