"""A comparison kept at an address: another machine goes on with it, and what was cut short is not there."""

from pathlib import Path

import pytest
from lightning import Trainer

from excite.comparison import Plan, collect, run_plan
from excite.comparison.execute import execute
from excite.comparison.plan import make_plan
from excite.comparison.store import Store
from excite.engine.history import History
from excite.errors import ExciteError

SMALL = {"epochs": 2, "limit_train": 64, "limit_val": 20, "batch_size": 32}


def plan_of(methods: str = "none,eca", seeds: int = 1) -> Plan:
    return make_plan(methods, "resnet20", "digits", seeds=seeds, train=SMALL)


def addresses(tmp_path: Path) -> dict[str, str]:
    return {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/kept"}


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_files_travel_whole(kind: str, tmp_path: Path) -> None:
    store = Store(addresses(tmp_path)[kind])
    here, there = tmp_path / "here" / "none-seed0", tmp_path / "there" / "none-seed0"
    assert store.files() == store.files("runs") == []
    store.fetch_run(there)
    assert not there.exists()
    for name in ("config.yaml", "checkpoints/last.ckpt", "samples/a.png", ".lock", ".0123abcd.partial.csv"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    store.send_run(here)
    assert store.files("runs/none-seed0") == ["checkpoints/last.ckpt", "config.yaml"]
    (there / "stale.csv").parent.mkdir(parents=True)
    (there / "stale.csv").touch()
    store.fetch_run(there)
    assert sorted(p.relative_to(there).as_posix() for p in there.rglob("*.*")) == store.files("runs/none-seed0")
    assert (there / "checkpoints" / "last.ckpt").read_text() == "checkpoints/last.ckpt"
    store.exchange([here])  # not ended: nothing of it counts
    for name in ("summary.json", "metrics.csv"):
        (here / name).write_text("1")
    elsewhere = tmp_path / "elsewhere" / "none-seed0"
    store.exchange([here])
    store.exchange([elsewhere])
    assert sorted(p.name for p in elsewhere.iterdir()) == ["config.yaml", "metrics.csv", "summary.json"]
    assert store.files("runs/none-seed") == []  # a name that begins alike is another one


def test_what_is_out_of_reach_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    store = Store(f"file://{tmp_path}/kept")
    (tmp_path / "a").write_text("a")
    with pytest.raises(ExciteError, match="kept"):
        store.send(tmp_path, "", ["a"])
    with pytest.raises(ExciteError, match=r"--store .*kept"):
        store.fetch("runs", tmp_path / "here", ["gone"])


def test_another_machine_goes_on_to_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first machine dies in the second epoch of its second run; the second one has nothing but the address."""

    class DeathError(Exception):
        pass

    def die(self: History, trainer: Trainer, *more: object) -> None:
        original(self, trainer, *more)
        if trainer.current_epoch == 1 and "eca" in str(self.directory.path):
            raise DeathError

    address, plan = addresses(tmp_path)["file"], plan_of()
    for run in plan.runs(tmp_path / "whole"):
        execute(plan, run)
    original = History.on_train_batch_end
    monkeypatch.setattr(History, "on_train_batch_end", die)
    with pytest.raises(DeathError):
        run_plan(plan, tmp_path / "one", store=address, report=lambda line: None)
    monkeypatch.undo()
    assert "summary.json" in Store(address).files("runs/none-seed0")
    assert "checkpoints/last.ckpt" in Store(address).files("runs/eca-seed0")
    lines: list[str] = []
    results = run_plan(plan, tmp_path / "two", store=address, report=lines.append)
    assert "1 of 2 runs are there already" in lines
    rows = (tmp_path / "two" / "runs" / "eca-seed0" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    for row in results.rows:
        whole = (tmp_path / "whole" / "runs" / f"{row.name}-seed0" / "metrics.csv").read_text().splitlines()
        assert row.curves[0][-1]["train_loss"] == float(whole[-1].split(",")[whole[0].split(",").index("train_loss")])
    third = run_plan(plan, tmp_path / "three", store=address, report=lines.append)
    assert lines[-1] == "2 of 2 runs are there already"
    assert [r.top1 for r in third.rows] == [r.top1 for r in results.rows]
    assert third.rows[0].cost == results.rows[0].cost
    assert collect(tmp_path / "three").complete
    assert {"report.html", "plan.json", "cost.json"} <= set(Store(address).files())
