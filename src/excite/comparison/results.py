"""Read a comparison's folder back: one row per variant, whatever has finished by now."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from excite.common.checks import Number, fits, shown
from excite.common.files import check_file
from excite.comparison import cost
from excite.comparison.agreement import disagreements
from excite.comparison.cost import Cost
from excite.comparison.plan import Plan, load, read_values
from excite.comparison.statistics import Gain, corrected, mean_std, paired_gain, visible, withheld
from excite.comparison.variants import Variant
from excite.data.bundle import WORDS
from excite.errors import ExciteError

Summary = dict[str, Any]  # a summary.json, whose entries differ by kind


@dataclass(frozen=True)
class Row:
    """A variant's result: top-1 of the last epoch by seed (a share), mean, deviation, gain over the baseline, cost.

    name: the variant's in this table; baseline: the name of the one that it is paired with.
    """

    name: str
    variant: Variant
    baseline: str
    top1: dict[int, float]
    top5: dict[int, float]
    mean: float | None
    std: float | None
    gain: Gain | None
    cost: Cost | None
    curves: dict[int, list[dict[str, float]]] = field(repr=False, default_factory=dict)
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """Return the verdict in words; the baseline has none."""
        if self.mean is None:
            return "not finished"
        return "baseline" if self.gain is None else self.gain.verdict


@dataclass(frozen=True)
class Results:
    """What a comparison has found so far."""

    plan: Plan
    rows: list[Row]
    finished: int
    total: int
    environment: dict[str, object] | None
    visible: float | None = None  # the gain that so many seeds show with a probability of 80 %
    split: str = ""  # the images that top-1 is of: val or test
    disagreements: tuple[str, ...] = ()  # what runs differ in beside their variants, in words

    @property
    def complete(self) -> bool:
        """Tell whether every run has finished."""
        return self.finished == self.total

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain containers."""
        rows = []
        for row in self.rows:
            values = asdict(row) | {"verdict": row.verdict}
            values |= {"method": row.variant.method, "backbone": row.variant.backbone}
            values["curves"] = {str(k): v for k, v in row.curves.items()}
            rows.append(values)
        return {
            "plan": self.plan.to_dict(),
            "finished": self.finished,
            "total": self.total,
            "complete": self.complete,
            "visible": self.visible,
            "split": self.split,
            "disagreements": list(self.disagreements),
            "rows": rows,
            "environment": self.environment,
        }


def collect(folder: Path) -> Results:
    """Read what a comparison's folder holds. Raises UsageError where it is none."""
    plan = load(folder)
    known = cost.read(folder)
    costs = known["costs"] if known else {}
    machine = known["environment"] if known else None
    runs = plan.runs(folder)
    summaries: dict[str, dict[int, Summary]] = {name: {} for name in plan.names}
    for run in runs:
        if run.finished:
            summary = read_values(run.folder / "summary.json")
            for name in ("last_top1", "last_top5", "seconds"):
                if not fits(summary.get(name), Number):
                    raise ExciteError(f"{run.folder / 'summary.json'} is broken: {name} is {shown(summary.get(name))}")
            summaries[run.label][run.seed] = summary | {"curve": _curve(run.folder)}
    rows = [_row(plan, v, summaries, costs.get(plan.name_of(v))) for v in plan.variants]
    unlike = tuple(disagreements(runs))
    if unlike:
        rows = [replace(row, gain=row.gain and withheld(row.gain)) for row in rows]
    gains = [row.gain for row in rows if row.gain is not None]
    seen = visible([gain.differences for gain in gains], len(_others(rows)), plan.judged)
    finished = [summary for of_variant in summaries.values() for summary in of_variant.values()]
    splits = {str(summary.get("split", "")) for summary in finished}
    words = {str(key): word for key, word in WORDS.items()}
    split = words.get(splits.pop(), "") if len(splits) == 1 else ""
    rows = judge(rows, plan.judged)
    return Results(plan, rows, len(finished), len(runs), machine, seen, split, unlike)


def judge(rows: list[Row], looks: int = 1) -> list[Row]:
    """Return the rows with verdicts corrected for the number of variants in the table, and of looks at it.

    A variant that has no result yet counts: otherwise one that fails would make the others look clearer.
    """
    others = _others(rows)
    gains = corrected([row.gain or Gain(None, None, None, 0) for row in others], looks)
    judged = {row.name: gain for row, gain in zip(others, gains, strict=True) if row.gain is not None}
    return [replace(row, gain=judged.get(row.name)) for row in rows]


def _others(rows: list[Row]) -> list[Row]:
    """Return the rows of a table that are compared with a baseline."""
    return [row for row in rows if row.name != row.baseline]


def _row(plan: Plan, variant: Variant, summaries: Mapping[str, dict[int, Summary]], counted: Cost | None) -> Row:
    name, baseline = plan.name_of(variant), plan.name_of(plan.baseline(variant))
    runs, others = summaries[name], summaries[baseline]
    # The last epoch, not the best: choosing the best epoch on the test images would flatter noisy variants.
    top1 = {seed: run["last_top1"] for seed, run in sorted(runs.items())}
    mean, std = mean_std(list(top1.values())) if top1 else (None, None)
    gain = None
    if top1 and name != baseline:
        common = sorted(set(top1) & set(others))
        gain = paired_gain([top1[s] for s in common], [others[s]["last_top1"] for s in common])
    return Row(
        name=name,
        variant=variant,
        baseline=baseline,
        top1=top1,
        top5={seed: run["last_top5"] for seed, run in sorted(runs.items())},
        mean=mean,
        std=std,
        gain=gain,
        cost=counted,
        curves={seed: run["curve"] for seed, run in sorted(runs.items())},
        seconds=sum(run["seconds"] for run in runs.values()),
    )


def _curve(folder: Path) -> list[dict[str, float]]:
    import csv

    path = folder / "metrics.csv"
    check_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("it holds no epochs")
        return [{name: float(row[name]) for name in ("epoch", "train_loss", "val_top1")} for row in rows]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ExciteError(f"{path} is broken: {type(error).__name__}: {error}") from None
