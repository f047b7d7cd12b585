"""Epochs and images for some minutes: from a measured pace, said in a line, kept when the comparison goes on."""

from pathlib import Path
from typing import Any

import pytest

from excite.comparison import budget, run_plan
from excite.comparison.budget import Pace, planned, shrunk
from excite.comparison.plan import Plan, load, make_plan
from excite.errors import UsageError


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of a second for an image, a quarter of it in validation, for every variant."""
    monkeypatch.setattr(budget, "measure_pace", lambda *_: Pace(0.001, 0.00025))


def plan(**options: object) -> Plan:
    return make_plan("none,eca", data="cifar10", recipe="cifar10-short", seeds=3, **options)


def seconds(epochs: int, images: int, runs: int = 6) -> float:
    return 1.1 * runs * epochs * (0.001 * images + 0.00025 * 10_000)


def test_a_recipe_that_fits_stays_whole(pace: None) -> None:
    lines: list[str] = []
    whole = planned(plan(), seconds(15, 50_000) / 60 + 0.01, 50_000, 10_000, 1, lines.append)
    assert whole.changes == {}
    assert "6 runs of 15 epochs (recipe: 15) over 50000 of 50000 training images" in lines[0]


def test_epochs_go_first_and_the_schedule_shrinks_with_them(pace: None) -> None:
    shorter = planned(plan(), seconds(9, 50_000) / 60 + 0.01, 50_000, 10_000, 1, print)
    assert shorter.changes == {"epochs": 9, "warmup_epochs": 1.8}


def test_then_images(pace: None) -> None:
    fewer = planned(plan(), seconds(5, 20_000) / 60 + 0.01, 50_000, 10_000, 1, print)
    assert fewer.changes == {"epochs": 5, "warmup_epochs": 1.0, "limit_train": 20_000 // 128 * 128}
    assert seconds(5, fewer.changes["limit_train"]) <= seconds(5, 20_000)
    with pytest.raises(UsageError, match=r"runs of 5 epochs over 512 images take about \d+"):
        planned(plan(), 0.01, 50_000, 10_000, 1, print)


def test_more_seeds_and_more_jobs_count(pace: None) -> None:
    minutes = seconds(8, 50_000) / 60 + 0.01
    assert planned(plan(), minutes, 50_000, 10_000, 2, print).changes.get("epochs", 15) == 15
    assert planned(plan(until_clear=6), minutes, 50_000, 10_000, 1, print).changes["limit_train"] < 50_000


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_a_number(minutes: float) -> None:
    with pytest.raises(UsageError, match="expected minutes"):
        planned(plan(), minutes, 50_000, 10_000, 1, print)


def test_lengths_of_a_schedule() -> None:
    config = make_plan(data="cifar10", train={"schedule": "step", "milestones": [100, 150], "epochs": 200}).config
    steps = config(make_plan().variants[0], 0, Path("unused"))
    assert shrunk(steps, 0.1)["milestones"] == [10, 15]


def test_a_comparison_with_a_budget_goes_on_as_it_was_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is really measured here, and not again when the same command is given; a slow machine is pretended."""
    measure, measured = budget.measure_pace, []

    def slow(*arguments: Any) -> Pace:
        measured.append(measure(*arguments))
        return Pace(0.1, 0.0)

    monkeypatch.setattr(budget, "measure_pace", slow)
    small = {"limit_train": 96, "limit_val": 20, "epochs": 3, "batch_size": 16}
    lines: list[str] = []
    one = make_plan("none,se_var1", seeds=1, train=small)
    run_plan(one, tmp_path / "c", budget=1.0, report=lines.append)
    first = load(tmp_path / "c")
    assert first.budget == 1.0
    assert first.changes["limit_train"] == 80  # 1.1 * 2 runs * 3 epochs * 80 images * 0.1 s = 53 s
    assert len(measured) == 2
    assert all(0 < pace.train < 60 and 0 <= pace.val < 60 for pace in measured)
    assert any(line.startswith("budget of 60 seconds: 2 runs of 3 epochs") for line in lines)
    assert "Epochs and images were planned for 1 minutes" in (tmp_path / "c" / "results.md").read_text()
    lines.clear()
    run_plan(one, tmp_path / "c", budget=1.0, report=lines.append)
    assert len(measured) == 2
    assert load(tmp_path / "c") == first
    assert lines == ["2 of 2 runs are there already"]
    with pytest.raises(UsageError, match="a budget of 1 minutes, not 2"):
        run_plan(one, tmp_path / "c", budget=2.0, report=lines.append)
