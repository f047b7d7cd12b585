"""Epochs and images for some minutes: from a measured pace, said in a line, kept when the comparison goes on."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from excite.comparison import budget, experiment, run_plan
from excite.comparison.budget import Pace, measure_pace, planned, shrunk, side_by_side
from excite.comparison.plan import Plan, Run, load, make_plan
from excite.errors import UsageError

SMALL = {"limit_train": 96, "limit_val": 20, "epochs": 3, "batch_size": 16}

# Of both variants: two seconds to start, a ten-thousandth to read an image, a thousandth to train on it, a quarter of
# that in validation.
PACES = [Pace(2.0, 0.0001, 0.001, 0.00025)] * 2


def plan(**options: object) -> Plan:
    return make_plan("none,eca", data="cifar10", recipe="cifar10-short", seeds=3, **options)


def within(minutes: float, at_once: int = 1, spent: float = 0.0, report: Any = print, **options: object) -> Plan:
    return planned(plan(**options), minutes, 50_000, 10_000, PACES, at_once, report, spent=spent)


def seconds(epochs: int, images: int, runs: int = 6) -> float:
    before = 2.0 + 0.0001 * (images + 10_000)
    return 1.1 * runs * (before + epochs * (0.001 * images + 0.00025 * 10_000))


def test_a_recipe_that_fits_stays_whole() -> None:
    lines: list[str] = []
    whole = within(seconds(15, 50_000) / 60 + 0.01, report=lines.append)
    assert whole.changes == {}
    assert "6 runs of 15 epochs (recipe: 15) over 50000 of 50000 training images take about" in lines[0]


def test_epochs_go_first_and_the_schedule_shrinks_with_them() -> None:
    shorter = within(seconds(9, 50_000) / 60 + 0.01)
    assert shorter.changes == {"epochs": 9, "warmup_epochs": 1.8}
    assert within(seconds(9, 50_000) / 60 - 0.01).changes["epochs"] == 8


def test_then_images() -> None:
    fewer = within(seconds(5, 20_000) / 60 + 0.01)
    assert fewer.changes == {"epochs": 5, "warmup_epochs": 1.0, "limit_train": 20_000 // 128 * 128}
    assert seconds(5, fewer.changes["limit_train"]) <= seconds(5, 20_000)
    with pytest.raises(UsageError, match=r"6 runs of 5 epochs over 512 images take about \d+"):
        within(0.01)


def test_more_seeds_and_more_jobs_count() -> None:
    minutes = seconds(8, 50_000) / 60 + 0.01
    assert within(minutes, at_once=2).changes.get("epochs", 15) == 15
    assert within(minutes, until_clear=6).changes["limit_train"] < 50_000


def test_the_last_runs_take_their_time_beside_idle_processes() -> None:
    """Six runs, four at a time, take as long as eight."""
    minutes = seconds(8, 50_000, runs=2) / 60 + 0.01
    lines: list[str] = []
    assert within(minutes, at_once=4, report=lines.append).changes["epochs"] == 8
    assert "training images, 4 at a time, take about" in lines[0]


def test_minutes_that_measuring_took_are_gone() -> None:
    minutes = (seconds(8, 50_000) + 30) / 60 + 0.01
    assert within(minutes, spent=30).changes["epochs"] == 8
    assert within(minutes, spent=31).changes["epochs"] == 7
    assert within(minutes, spent=30).budget == minutes
    with pytest.raises(UsageError, match=r"--budget 0\.5: 6 runs"):
        within(0.5, spent=31)


@pytest.mark.parametrize(
    ("slots", "at_once", "measured"), [(1, 1, "012"), (2, 2, "0120"), (4, 4, "0120"), (99, 6, "012012")]
)
def test_none_is_measured_in_an_emptier_machine_than_it_trains_in(slots: int, at_once: int, measured: str) -> None:
    three = make_plan("none,eca,se", seeds=2)
    variants, beside = side_by_side(three, slots)
    assert beside == at_once
    assert [three.variants.index(v) for v in variants] == [int(i) for i in measured]


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_a_number(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected minutes"):
        run_plan(make_plan("none", seeds=1), tmp_path / "c", budget=minutes)
    assert not (tmp_path / "c").exists()


def test_lengths_of_a_schedule() -> None:
    config = make_plan(data="cifar10", train={"schedule": "step", "milestones": [100, 150], "epochs": 200}).config
    steps = config(make_plan().variants[0], 0, Path("unused"))
    assert shrunk(steps, 0.1)["milestones"] == [10, 15]


def test_a_pace_is_that_of_a_warm_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that took 9 s: 2 epochs of 3 s, 0.5 s for reading 48 images, the rest to start. The first took 100 s."""
    clock = 0.0
    took = iter([100.0, 9.0])

    def fake(plan: Plan, run: Run) -> None:
        nonlocal clock
        clock += next(took)
        run.folder.mkdir()
        assert plan.changes["limit_train"] == 32
        assert plan.changes["limit_val"] == 20
        rows = "epoch,seconds,images_per_s\n1,3.0,12\n2,3.0,16\n"
        (run.folder / "metrics.csv").write_text(rows)
        summary = {"train_images": 32, "val_images": 16, "data_seconds": 1.0}
        (run.folder / "summary.json").write_text(json.dumps(summary))

    bundle = SimpleNamespace(train=range(128), val=range(16))
    monkeypatch.setattr(budget, "execute", fake)
    monkeypatch.setattr(budget, "ImageData", lambda config: SimpleNamespace(seconds=2.0, bundle=bundle))
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: clock))
    small = make_plan("none", seeds=1, train={"batch_size": 8, "limit_val": 20})
    read = 1 / 96
    assert measure_pace(small, small.variants[0]) == pytest.approx(Pace(9 - 6 - 48 * read, read, 1 / 16, 1 / 16))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_comparison_with_a_budget_goes_on_as_it_was_planned(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pace is really measured here, and not again when the same command is given; a slow machine is pretended."""
    measure, measured = experiment._paces, []

    def slow(*arguments: Any) -> tuple[list[Pace], int]:
        measured.append(measure(*arguments))
        return [Pace(0.0, 0.0, 10.0, 0.0)] * 2, 1

    monkeypatch.setattr(experiment, "_paces", slow)
    lines: list[str] = []
    one = make_plan("none,se_var1", seeds=1, train=SMALL)
    run_plan(one, tmp_path / "c", budget=100.0, jobs=jobs, report=lines.append)
    first = load(tmp_path / "c")
    assert first.budget == 100.0
    assert first.changes["limit_train"] == 80  # 1.1 * 2 runs * 3 epochs * 80 images * 10 s = 88 minutes
    ((paces, at_once),) = measured
    assert at_once == jobs
    assert len(paces) == 2
    assert all(0 < pace.train < 60 and 0 <= pace.val < 60 for pace in paces)
    assert any(line.startswith("budget of 100 minutes: 2 runs of 3 epochs") for line in lines)
    assert "Epochs and images were planned for 100 minutes" in (tmp_path / "c" / "results.md").read_text()
    lines.clear()
    run_plan(one, tmp_path / "c", budget=100.0, report=lines.append)
    assert len(measured) == 1
    assert load(tmp_path / "c") == first
    assert lines == ["2 of 2 runs are there already"]
    with pytest.raises(UsageError, match="a budget of 100 minutes, not 2"):
        run_plan(one, tmp_path / "c", budget=2.0, report=lines.append)
