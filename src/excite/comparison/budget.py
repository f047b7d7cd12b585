"""How long will it take? Epochs and images of a comparison that shall end within some minutes, from a measured pace."""

import csv
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from excite.common.options import Option
from excite.comparison.execute import Report
from excite.comparison.plan import Plan
from excite.comparison.variants import Variant
from excite.engine.process import unchanged
from excite.errors import UsageError
from excite.train import fit
from excite.train.config import TrainConfig

FEWEST_EPOCHS = 5  # before that, images are left out
FEWEST_BATCHES = 4
MEASURED_BATCHES = 4
SPARE = 1.1  # for what is not training: opening data, writing checkpoints, costs, pictures


@dataclass(frozen=True)
class Pace:
    """Seconds per image: training (loading included) and validation."""

    train: float
    val: float


def planned(plan: Plan, minutes: float, train: int, val: int, jobs: int, report: Report) -> Plan:
    """Return the plan with epochs, and where those do not suffice images, that end within `minutes`.

    train, val: images that there are. Every variant trains a few batches first, to measure its pace. Epochs are taken
    away down to five, then training images; lengths of the schedule shrink with the epochs.
    Raises UsageError where not even that fits.
    """
    if not minutes > 0 or not math.isfinite(minutes):
        raise UsageError(f"--budget {minutes:g}: expected minutes, a number above 0")
    base = plan.config(plan.variants[0], 0, Path("unused"))
    images = min(train, base.limit_train or train)
    checks = min(val, base.limit_val or val)
    paces = [measure_pace(plan, variant, base.batch_size) for variant in plan.variants]
    seeds = max((*plan.looks, plan.seeds))

    def seconds(epochs: int, count: int) -> float:
        once = sum(pace.train * count + pace.val * checks for pace in paces)
        return SPARE * seeds * epochs * once / min(jobs, seeds * len(paces))

    allowed = 60 * minutes
    epochs = min(base.epochs, int(allowed / seconds(1, images)))
    count = images
    if epochs < min(FEWEST_EPOCHS, base.epochs):
        epochs = min(FEWEST_EPOCHS, base.epochs)
        fixed = seconds(epochs, 0)
        count = int((allowed - fixed) / (seconds(epochs, 1) - fixed)) if allowed > fixed else 0
        count = count // base.batch_size * base.batch_size
    fewest = min(images, FEWEST_BATCHES * base.batch_size)
    if count < fewest:
        raise UsageError(
            f"--budget {minutes:g}: {seeds * len(paces)} runs of {epochs} epochs over {fewest} images take about "
            f"{_words(seconds(epochs, fewest))}; give more minutes, fewer seeds or a smaller backbone"
        )
    changes: dict[str, Option] = dict(plan.changes)
    if epochs != base.epochs:
        changes["epochs"] = epochs
        changes |= shrunk(base, epochs / base.epochs)
    if count != images:
        changes["limit_train"] = count
    report(
        f"budget of {_words(allowed)}: {seeds * len(paces)} runs of {epochs} epochs (recipe: {base.epochs}) over "
        f"{count} of {train} training images take about {_words(seconds(epochs, count))} (a batch of "
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


def measure_pace(plan: Plan, variant: Variant, batch: int) -> Pace:
    """Train a few batches twice; the second time counts, because the first one builds and warms up."""
    with tempfile.TemporaryDirectory(prefix="excite-pace-") as folder, unchanged():
        config = plan.config(variant, 0, Path(folder) / "run")
        few = MEASURED_BATCHES * batch
        train_images, val_images = min(few, config.limit_train or few), min(few, config.limit_val or few)
        shorter = {**shrunk(config, 2 / config.epochs), "limit_train": train_images, "limit_val": val_images}
        fit(replace(config, epochs=2, **shorter))
        with (Path(folder) / "run" / "metrics.csv").open(encoding="utf-8", newline="") as file:
            last = list(csv.DictReader(file))[-1]
    train = 1 / float(last["images_per_s"])
    val = max(0.0, float(last["seconds"]) - train * train_images) / val_images
    return Pace(train, val)


def _words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
