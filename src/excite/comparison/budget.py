"""How long will it take? Epochs and images of a comparison that shall end within some minutes, from a measured pace."""

import csv
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from excite.common.options import Option
from excite.comparison.execute import Report, execute
from excite.comparison.plan import Plan, Run
from excite.comparison.variants import Variant
from excite.engine.process import unchanged
from excite.errors import UsageError
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData

PLANNED = ("epochs", "warmup_epochs", "step_epochs", "milestones", "limit_train")  # the options that a budget may set
FEWEST_EPOCHS = 5  # before that, images are left out
FEWEST_BATCHES = 4
MEASURED_BATCHES = 4
MORE = 4  # times as many images show how long reading one takes
SPARE = 1.1  # for what comes after the runs: costs, pictures


@dataclass(frozen=True)
class Pace:
    """Seconds: per run; per image that is read before training; per image of an epoch's training and validation."""

    start: float
    read: float
    train: float
    val: float


def check_minutes(minutes: float) -> None:
    """Raise UsageError for a budget that is no time."""
    if not minutes > 0 or not math.isfinite(minutes):
        raise UsageError(f"--budget {minutes:g}: expected minutes, a number above 0")


def planned(
    plan: Plan,
    minutes: float,
    train: int,
    val: int,
    paces: Sequence[Pace],
    at_once: int,
    report: Report,
    *,
    spent: float = 0,
) -> Plan:
    """Return the plan with epochs, and where those do not suffice images, that end within `minutes`.

    train, val: images that there are. paces: of the variants, measured with `at_once` runs side by side. spent: seconds
    of the minutes that are gone. Epochs are taken away down to five, then training images; lengths of the schedule
    shrink with the epochs. Raises UsageError where not even that fits.
    """
    base = plan.config(plan.variants[0], 0, Path("unused"))
    images = min(train, base.limit_train or train)
    checks = min(val, base.limit_val or val)
    runs = plan.most_seeds * len(paces)

    def seconds(epochs: int, count: int) -> float:
        once = sum(p.start + p.read * (count + checks) + epochs * (p.train * count + p.val * checks) for p in paces)
        return SPARE * once / len(paces) * math.ceil(runs / at_once)

    allowed = 60 * minutes - spent
    most, count = base.epochs, images
    per_epoch = seconds(1, images) - seconds(0, images)
    epochs = min(most, max(0, int((allowed - seconds(0, images)) / per_epoch)))
    if epochs < min(FEWEST_EPOCHS, most):
        epochs = min(FEWEST_EPOCHS, most)
        fixed = seconds(epochs, 0)
        count = int((allowed - fixed) / (seconds(epochs, 1) - fixed)) if allowed > fixed else 0
        count = count // base.batch_size * base.batch_size
    fewest = min(images, FEWEST_BATCHES * base.batch_size)
    if count < fewest:
        raise UsageError(
            f"--budget {minutes:g}: {runs} runs of {epochs} epochs over {fewest} images take about "
            f"{_words(seconds(epochs, fewest) + spent)}; give more minutes, fewer seeds or a smaller backbone"
        )
    changes: dict[str, Option] = dict(plan.changes)
    if epochs != base.epochs:
        changes["epochs"] = epochs
        changes |= shrunk(base, epochs / base.epochs)
    if count != images:
        changes["limit_train"] = count
    beside = f", {at_once} at a time," if at_once > 1 else ""
    report(
        f"budget of {_words(60 * minutes)}: {runs} runs of {epochs} epochs (recipe: {base.epochs}) over {count} of "
        f"{train} training images{beside} take about {_words(seconds(epochs, count))} (a batch of "
        f"{base.batch_size} takes {_range([1e3 * base.batch_size * pace.train for pace in paces])} ms)"
    )
    return replace(plan, changes=changes, budget=minutes)


def shrunk(config: TrainConfig, factor: float) -> dict[str, Option]:
    """Return the lengths in a schedule that are counted in epochs, for a run of `factor` times the epochs."""
    changes: dict[str, Option] = {}
    if config.warmup_epochs:
        changes["warmup_epochs"] = round(config.warmup_epochs * factor, 2)
    if config.schedule in ("step", "exponential"):
        changes["step_epochs"] = round(config.step_epochs * factor, 3)
        if config.milestones:
            changes["milestones"] = [max(1, round(epoch * factor)) for epoch in config.milestones]
    return changes


def side_by_side(plan: Plan, slots: int) -> tuple[list[Variant], int]:
    """Return the variants whose paces are to be measured, and how many at a time: as many as will train at a time.

    Some are measured twice, so that none is measured in an emptier machine than it will train in.
    """
    at_once = min(slots, plan.most_seeds * len(plan.variants))
    rounds = math.ceil(len(plan.variants) / at_once)
    return [plan.variants[i % len(plan.variants)] for i in range(rounds * at_once)], at_once


def measure_pace(plan: Plan, variant: Variant) -> Pace:
    """Train two short epochs twice, as a run of the comparison does; the second time counts: the first one warms up."""
    with tempfile.TemporaryDirectory(prefix="excite-pace-") as folder, unchanged():
        base = plan.config(variant, 0, Path(folder))
        few = MEASURED_BATCHES * base.batch_size
        shorter = shrunk(base, 2 / base.epochs) | {
            "epochs": 2,
            "limit_train": min(few, base.limit_train or few),
            "limit_val": min(few, base.limit_val or few),
        }
        short = replace(plan, changes={**plan.changes, **shorter})
        for name in ("first", "second"):
            started = time.perf_counter()
            execute(short, Run(variant, 0, Path(folder) / name, name))
            took = time.perf_counter() - started
        with (Path(folder) / name / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        summary = json.loads((Path(folder) / name / "summary.json").read_text(encoding="utf-8"))
        data = ImageData(replace(base, limit_train=MORE * few, limit_val=MORE * few))
    seen = summary["train_images"] + summary["val_images"]
    more = len(data.bundle.train) + len(data.bundle.val) - seen
    read = max(0.0, data.seconds - summary["data_seconds"]) / more if more > 0 else 0.0
    train = 1 / float(rows[-1]["images_per_s"])
    val = max(0.0, float(rows[-1]["seconds"]) - train * summary["train_images"]) / summary["val_images"]
    start = max(0.0, took - sum(float(row["seconds"]) for row in rows) - read * seen)
    return Pace(start, read, train, val)


def _words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
