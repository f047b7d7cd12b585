"""Whether the runs of a comparison were made alike, and as its plan says.

A recipe's file, the photos or a version may have changed since a run ended; a table whose runs differ in more than
their variant compares nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from excite.common.options import flag
from excite.comparison.plan import Plan, Run, read_values
from excite.comparison.training import RESERVED
from excite.engine.config import differences
from excite.engine.rates import resolve_rate
from excite.errors import UsageError
from excite.train.config import FOR_TRAINED, TrainConfig

# Any: what YAML and JSON files hold.

MOST_NAMED = 3
# Entries of summary.json that are the same for all runs on a backbone.
ALIKE = {
    "train_images": "{} training images",
    "val_images": "{} validation images",
    "size": "images of {} pixels",
    "precision": "a precision of {}",
}
# Options in which runs on a backbone may differ: what a comparison sets for each, and how and where it is computed.
OWN = {*RESERVED, *TrainConfig.FREE_ON_RESUME, *TrainConfig.NOT_RECORDED} - {"data"}


def check_agreement(plan: Plan, folder: Path) -> None:
    """Raise UsageError where a run that is there was made otherwise than the plan says now, or than the others."""
    runs = plan.runs(folder)
    if found := disagreements(runs):
        raise UsageError(f"{folder} holds runs that cannot stand in one table: {few(found)}; {REMEDY}")
    if found := list(_from_plan(plan, runs)):
        raise UsageError(
            f"{folder} holds runs that were made otherwise than they would be now: {few(found)}. Give the recipe as it "
            "was, or choose another --out"
        )


REMEDY = "choose another --out, or remove the folders of those that are odd, and they are trained again"


def disagreements(runs: Iterable[Run]) -> list[str]:
    """Return in words in what finished runs differ beside their variants and seeds."""
    finished = [run for run in runs if run.finished]
    return [*_in_options(finished), *_in_summaries(finished)]


def _from_plan(plan: Plan, runs: Iterable[Run]) -> Iterator[str]:
    for run in runs:
        try:
            config = plan.config(run.variant, run.seed, run.folder)
            config, _ = resolve_rate(config, TrainConfig.from_recipe(config.model, config.recipe, data=config.data))
            found = differences(config, run.folder)
        except UsageError:
            continue  # no config.yaml, or another version's: nothing says how it was made
        for name, before, now in found:
            if name not in FOR_TRAINED or before != FOR_TRAINED[name]:
                yield f"{run.name} was made with {flag(name)} {before}, not {now}"


def _in_options(runs: Iterable[Run]) -> Iterator[str]:
    for run, values, first, others in _beside_first((run, _options(run)) for run in runs):
        for name in values:
            if name not in OWN and name in others and values[name] != others[name]:
                yield (
                    f"{run.name} was made with {flag(name)} {values[name]}, and {first.name} with {flag(name)} "
                    f"{others[name]}"
                )


def _in_summaries(runs: Iterable[Run]) -> Iterator[str]:
    for run, values, first, others in _beside_first((run, read_values(run.folder / "summary.json")) for run in runs):
        for name, words in ALIKE.items():
            one, other = values.get(name), others.get(name)
            if None not in (one, other) and one != other:
                yield f"{run.name} had {words.format(one)}, and {first.name} {words.format(other)}"


def _beside_first(
    described: Iterable[tuple[Run, Mapping[str, Any]]],
) -> Iterator[tuple[Run, Mapping[str, Any], Run, Mapping[str, Any]]]:
    """Yield every run and what is known of it beside the first one on its backbone of which anything is known."""
    first: dict[str, tuple[Run, Mapping[str, Any]]] = {}
    for run, values in described:
        if values:
            yield run, values, *first.setdefault(run.variant.backbone, (run, values))


def _options(run: Run) -> Mapping[str, Any]:
    """Return what a run's config.yaml says, nothing where it cannot be read."""
    import yaml

    try:
        values = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def few(found: Sequence[str]) -> str:
    """Return the first few of many as one text."""
    more = len(found) - MOST_NAMED
    return "; ".join(found if more <= 0 else [*found[:MOST_NAMED], f"and {more} more"])
