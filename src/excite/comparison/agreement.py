"""Whether the finished runs of a comparison were made alike, and as its plan says.

A recipe's file, the photos or a version may have changed since a run ended; a table whose runs differ in more than
their variant compares nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from excite.common.options import flag
from excite.comparison.plan import Plan, Run, read_values
from excite.engine.config import differences
from excite.engine.rates import resolve_rate
from excite.errors import UsageError
from excite.train.config import FOR_TRAINED, TrainConfig

MOST_NAMED = 3
# Entries of summary.json that are the same for all runs on a backbone.
ALIKE = {
    "train_images": "{} training images",
    "val_images": "{} validation images",
    "size": "images of {} pixels",
    "precision": "a precision of {}",
}


def check_agreement(plan: Plan, folder: Path) -> None:
    """Raise UsageError where a finished run was made otherwise than the plan says, or than the others."""
    if found := disagreements(plan, folder):
        raise UsageError(
            f"{folder} holds runs that cannot stand in one table: {few(found)}. Choose another --out, or "
            "remove the folders of those runs, and they are trained again"
        )


def disagreements(plan: Plan, folder: Path) -> list[str]:
    """Return in words what finished runs were made with otherwise than the plan says, or than the others."""
    finished = [run for run in plan.runs(folder) if run.finished]
    return [*_from_plan(plan, finished), *_from_each_other(finished)]


def _from_plan(plan: Plan, runs: Iterable[Run]) -> Iterator[str]:
    for run in runs:
        if not (run.folder / "config.yaml").is_file():
            continue  # nothing says how it was made
        config = plan.config(run.variant, run.seed, run.folder)
        config, _ = resolve_rate(config, TrainConfig.from_recipe(config.model, config.recipe, data=config.data))
        for name, before, now in differences(config, run.folder):
            if name not in FOR_TRAINED or before != FOR_TRAINED[name]:
                yield f"{run.name} was made with {flag(name)} {before}, not {now}"


def _from_each_other(runs: Iterable[Run]) -> Iterator[str]:
    first: dict[str, tuple[Run, dict[str, object]]] = {}
    for run in runs:
        values = read_values(run.folder / "summary.json")
        known, others = first.setdefault(run.variant.backbone, (run, values))
        for name, words in ALIKE.items():
            one, other = values.get(name), others.get(name)
            if None not in (one, other) and one != other:
                yield f"{run.name} had {words.format(one)}, and {known.name} {words.format(other)}"


def few(found: Sequence[str]) -> str:
    """Return the first few of many as one text."""
    more = len(found) - MOST_NAMED
    return "; ".join(found if more <= 0 else [*found[:MOST_NAMED], f"and {more} more"])
