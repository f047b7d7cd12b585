"""A comparison kept at an address: another machine goes on with it, and what was cut short is not there."""

import contextlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning import Trainer

from excite.comparison import Plan, collect, cost, experiment, run_plan
from excite.comparison.execute import execute
from excite.comparison.experiment import open_store
from excite.comparison.plan import Run, make_plan
from excite.comparison.store import Store
from excite.engine.history import History
from excite.errors import ExciteError, UsageError

SMALL = {"epochs": 2, "limit_train": 64, "limit_val": 20, "batch_size": 32}
LESS = {"lr": 0.1, "epochs": 1}


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
    store.send_ended([here])  # not ended: nothing of it counts
    assert store.files("runs/none-seed0") == ["checkpoints/last.ckpt", "config.yaml"]
    for name in ("summary.json", "metrics.csv"):
        (here / name).write_text("1")
    elsewhere = tmp_path / "elsewhere" / "none-seed0"
    store.fetch_ended([elsewhere])
    assert not elsewhere.exists()
    store.send_ended([here])
    store.fetch_ended([elsewhere])
    assert sorted(p.name for p in elsewhere.iterdir()) == ["config.yaml", "metrics.csv", "summary.json"]
    assert store.files("runs/none-seed") == []  # a name that begins alike is another one


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str]:
    """The files of a folder, but the lock, which says nothing."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def run_of(epochs: int, word: str) -> dict[str, str]:
    return {"checkpoints/last.ckpt": word, "config.yaml": word, "metrics.csv": "epoch\n" + f"{word}\n" * epochs}


@pytest.mark.parametrize("given", ["{c}", "{c}/kept", "{c}/runs", "{top}", "{link}", "{link}/kept", "{c}/../c"])
@pytest.mark.parametrize("scheme", ["file", "local"])
def test_a_store_in_the_folder_itself_is_refused(scheme: str, given: str, tmp_path: Path) -> None:
    top, folder = tmp_path / "top", tmp_path / "top" / "c"
    run = folder / "runs" / "eca-seed0"
    write(run, run_of(1, "mine"))
    (tmp_path / "link").symlink_to(folder)
    address = f"{scheme}://{given.format(c=folder, top=top, link=tmp_path / 'link')}"
    with pytest.raises(UsageError, match=r"--store .* lie in each other"):
        run_plan(plan_of(), folder, store=address, report=lambda line: None)
    assert read(top) == {f"c/runs/eca-seed0/{name}": text for name, text in run_of(1, "mine").items()}


def test_a_store_that_the_runs_are_linked_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept" / "runs").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "runs").symlink_to(tmp_path / "kept" / "runs")
    with pytest.raises(UsageError, match="lie in each other"):
        open_store(f"file://{tmp_path}/kept", tmp_path / "c", alone=True)
    beside = open_store(f"file://{tmp_path}/c-kept", tmp_path / "c", alone=True)  # begins alike, lies beside it
    assert beside.local == (tmp_path / "c-kept").resolve()


def cut_off(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """Let the connection end in the middle of the file after so many."""
    get, got = Store._get, []

    def cut(self: Store, source: str, target: Path) -> None:
        if len(got) == files:
            target.write_text("half")
            raise ConnectionError("the line went dead")
        got.append(get(self, source, target))

    monkeypatch.setattr(Store, "_get", cut)


@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_connection_that_breaks_leaves_the_run_as_it_was(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = Store(f"file://{tmp_path}/kept"), tmp_path / "c" / "runs" / "eca-seed0"
    write(tmp_path / "kept" / "runs" / run.name, run_of(2, "theirs"))
    write(run, run_of(1, "mine"))
    cut_off(monkeypatch, files)
    with pytest.raises(ExciteError, match="the line went dead"):
        store.fetch_run(run)
    assert read(tmp_path / "c" / "runs") == {f"eca-seed0/{name}": text for name, text in run_of(1, "mine").items()}
    monkeypatch.undo()
    store.fetch_run(run)
    assert read(tmp_path / "c" / "runs") == {f"eca-seed0/{name}": text for name, text in run_of(2, "theirs").items()}


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_an_exchange_that_was_killed_loses_nothing(moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after so many of its moves, so that nothing is tidied up; and then there is no connection either."""
    store, run = Store(f"file://{tmp_path}/kept"), tmp_path / "c" / "runs" / "eca-seed0"
    write(tmp_path / "kept" / "runs" / run.name, run_of(2, "theirs"))
    write(run, run_of(1, "mine"))
    move, moved = Path.rename, []

    def killed(self: Path, target: Path) -> None:
        if len(moved) == moves:
            raise KeyboardInterrupt
        moved.append(move(self, target))

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        patch.setattr("excite.comparison.store._remove", lambda *folders: None)
        store.fetch_run(run)
    assert len(list(run.parent.iterdir())) == 2  # the other one is no run
    cut_off(monkeypatch, 0)
    with pytest.raises(ExciteError, match="the line went dead"):
        store.fetch_run(run)
    left = run_of(2, "theirs") if moves == 2 else run_of(1, "mine")
    assert read(run.parent) == {f"eca-seed0/{name}": text for name, text in left.items()}


@pytest.mark.parametrize(
    ("here", "there", "wins"),
    [(1, 2, "theirs"), (2, 2, "theirs"), (3, 2, "mine"), (0, 1, "theirs"), (3, 0, "mine")],
)
def test_the_run_that_has_come_further_counts(here: int, there: int, wins: str, tmp_path: Path) -> None:
    store, run = Store(f"file://{tmp_path}/kept"), tmp_path / "c" / "runs" / "eca-seed0"
    write(run, run_of(here, "mine"))
    write(tmp_path / "kept" / "runs" / run.name, run_of(there, "theirs"))
    store.fetch_run(run)
    assert read(run) == run_of(here if wins == "mine" else there, wins)
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    write(tmp_path / "kept" / "runs" / run.name, {"summary.json": "ended"})  # whatever else is there
    store.fetch_run(run)
    assert read(run) == {**run_of(there, "theirs"), "summary.json": "ended"}


def test_a_run_in_a_linked_folder_stays_there(tmp_path: Path) -> None:
    store, run = Store(f"file://{tmp_path}/kept"), tmp_path / "c" / "runs" / "eca-seed0"
    write(tmp_path / "kept" / "runs" / run.name, run_of(2, "theirs"))
    write(tmp_path / "disk" / "eca", run_of(1, "mine"))
    run.parent.mkdir(parents=True)
    run.symlink_to(tmp_path / "disk" / "eca")
    for _ in range(2):
        store.fetch_run(run)
        assert run.is_symlink()
        assert read(tmp_path / "disk") == {f"eca/{name}": text for name, text in run_of(2, "theirs").items()}


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    store, run = Store(f"file://{tmp_path}/kept"), tmp_path / "c" / "runs" / "eca-seed0"
    write(tmp_path / "kept" / "runs" / run.name, run_of(2, "theirs"))
    write(run, run_of(1, "mine"))
    code = (
        "import sys; from pathlib import Path; from excite.common.files import locked\n"
        "lock = locked(Path(sys.argv[1]), 'busy'); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match="another process is training this run"):
            store.fetch_run(run)
        other.communicate("")
    assert read(run) == run_of(1, "mine")


def test_what_a_killed_sender_left_is_no_file(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/kept")
    write(tmp_path / "kept" / "runs" / "eca-seed0", {".0123abcd.partial.ckpt": "half"})
    assert store.files() == []


def test_what_is_out_of_reach_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    store = Store(f"file://{tmp_path}/kept")
    (tmp_path / "a").write_text("a")
    with pytest.raises(ExciteError, match="kept"):
        store.send(tmp_path, "", ["a"])
    with pytest.raises(ExciteError, match=r"--store .*kept"):
        store.fetch("runs", tmp_path / "here", ["gone"])


def silent(line: str) -> None:
    pass


def trained(plan: Plan, run: Run, store: Store | None = None) -> None:
    """A run that takes no time; its last top-1 is its learning rate."""
    config = plan.config(run.variant, run.seed, run.folder)
    rows = "epoch,train_loss,val_top1\n1,1.0,0.5\n"
    summary = {"last_top1": config.lr / 10, "last_top5": 1.0, "seconds": 1.0, "top1": 0.5}
    write(run.folder, {"config.yaml": yaml.safe_dump(config.recorded()), "metrics.csv": rows})
    write(run.folder, {"summary.json": json.dumps(summary)})
    if store is not None:
        store.send_run(run.folder)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "execute", trained)
    monkeypatch.setattr(experiment, "_probe", lambda plan, report: (SimpleNamespace(num_classes=10), 8))
    monkeypatch.setattr(cost, "load_or_measure", lambda plan, folder, *more: (folder / cost.FILE).write_text("{}"))
    monkeypatch.setattr(cost, "read", lambda folder: None)
    monkeypatch.setattr(experiment, "draw", lambda results, folder: [])


OTHERS = {
    "lr": ({"train": {"lr": 0.9}}, "(changes|lr 0.1 there)"),
    "epochs": ({"train": {"epochs": 3}}, "(changes|epochs 10 there)"),
    "data": ({"data": "random:10"}, "data"),
    "recipe": ({"recipe": "cifar10-short"}, "recipe"),
    "baseline": ({"methods": "eca,none"}, "another baseline"),
    "variants": ({"methods": "none,se"}, "eca"),
    "more seeds, other variants": ({"methods": "none,se", "seeds": 3}, "eca"),
    "backbone": ({"backbone": "resnet32"}, "none, eca"),
    "options": ({"options": {"eca": {"kernel_size": 5}}}, "eca"),
}


def made(given: dict[str, Any]) -> Plan:
    usual = {"methods": "none,eca", "seeds": 2, "train": {"lr": 0.1}}
    return make_plan(**(usual | given))


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize("here", [True, False], ids=["with-a-folder", "with-an-empty-folder"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_store_of_another_comparison_is_refused(kind: str, here: bool, tmp_path: Path) -> None:
    """Though the folder's own plan agrees; nothing is trained, fetched or sent."""
    given, differing = OTHERS[kind]
    address = f"file://{tmp_path}/kept"
    run_plan(made({}), tmp_path / "a", store=address, report=silent)
    if here:
        run_plan(made(given), tmp_path / "b", report=silent)
    before = read(tmp_path)
    with pytest.raises(UsageError, match=rf"^--store {address} holds another comparison \(.*{differing}") as refused:
        run_plan(made(given | {"seeds": 3}), tmp_path / "b", store=address, report=silent)
    assert "another --store" in str(refused.value)
    assert "--out" not in str(refused.value)
    assert read(tmp_path) == before


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize("here", [True, False], ids=["with-a-folder", "with-an-empty-folder"])
@pytest.mark.parametrize(
    ("old", "grown", "variants", "seeds"),
    [
        ({"seeds": 1}, {"seeds": 3, "methods": "none,eca,se"}, ["none", "eca", "se"], 3),
        ({"seeds": 1}, {"seeds": 3}, ["none", "eca"], 3),
        ({"seeds": 2}, {"seeds": 2, "methods": "none,se,eca"}, ["none", "eca", "se"], 2),
        ({"seeds": 3}, {"seeds": 1, "methods": "none,eca,se"}, ["none", "eca", "se"], 3),  # each has grown
        ({"seeds": 3, "methods": "none,eca,se"}, {"seeds": 1}, ["none", "eca", "se"], 3),
        ({"seeds": 1, "methods": "none,eca,se"}, {"seeds": 3}, ["none", "eca", "se"], 3),
        ({"seeds": 1}, {"seeds": 1, "backbone": "resnet20,resnet32"}, None, 1),
    ],
)
def test_what_a_comparison_has_grown_by_elsewhere_is_taken_over(
    old: dict[str, Any], grown: dict[str, Any], variants: list[str] | None, seeds: int, here: bool, tmp_path: Path
) -> None:
    address, lines = f"file://{tmp_path}/kept", []
    if here:
        run_plan(made(old), tmp_path / "c", report=silent)
    there = run_plan(made(grown), tmp_path / "d", store=address, report=silent)
    results = run_plan(made(old), tmp_path / "c", store=address, report=lines.append)
    assert results.complete
    assert results.plan.seeds == seeds
    assert {row.name for row in results.rows} == {*(variants or there.plan.names)}
    told = f"the store has grown: going on with {len(results.rows)} variants and {seeds} seeds"
    assert (told in lines) == ((results.plan.names, seeds) != (made(old).names, made(old).seeds))
    assert (tmp_path / "kept" / "plan.json").read_bytes() == (tmp_path / "c" / "plan.json").read_bytes()
    assert {f"runs/{run.folder.name}/summary.json" for run in results.plan.runs(tmp_path)} <= set(
        Store(address).files()
    )
    again = run_plan(made(grown), tmp_path / "d", store=address, report=silent)
    assert {row.name: row.top1 for row in again.rows} == {row.name: row.top1 for row in results.rows}


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"method": "none", "backbone": "evil.py:make"}, "evil.py:make"),
        ({"method": "my_gate", "backbone": "resnet20", "file": "evil.py:MyGate"}, "evil.py:MyGate"),
    ],
)
def test_code_that_the_store_alone_names_is_not_run(entry: dict[str, str], named: str, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/kept"
    run_plan(made({}), tmp_path / "a", store=address, report=silent)
    file = tmp_path / "kept" / "plan.json"
    values = json.loads(file.read_text())
    values["variants"].append(entry)
    file.write_text(json.dumps(values))
    with pytest.raises(ExciteError, match=rf"^--store {address} names the Python file '{named}'"):
        run_plan(made({}), tmp_path / "a", store=address, report=silent)


@pytest.mark.usefixtures("stubbed")
def test_a_method_that_is_not_known_here_is_said_so(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/kept"
    run_plan(made({}), tmp_path / "a", store=address, report=silent)
    file = tmp_path / "kept" / "plan.json"
    values = json.loads(file.read_text())
    values["variants"].append({"method": "my_gate", "backbone": "resnet20"})
    file.write_text(json.dumps(values))
    words = f"^--store {address} holds variants of my_gate, a method .* not known here; .* EXCITE_METHODS=FILE.py:NAME$"
    with pytest.raises(ExciteError, match=words):
        run_plan(made({}), tmp_path / "b", store=address, report=silent)


@pytest.mark.usefixtures("stubbed")
def test_an_error_about_the_folder_is_not_one_about_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder holds another comparison than the store, which has a budget, too."""
    address = f"file://{tmp_path}/kept"
    monkeypatch.setattr(experiment, "_within", lambda plan, budget, *more: replace(plan, budget=budget, changes=LESS))
    run_plan(made({}), tmp_path / "a", store=address, budget=5.0, report=silent)
    run_plan(made({}), tmp_path / "b", report=silent)
    with pytest.raises(UsageError, match=rf"^{tmp_path}/b holds .* no budget, not 5; choose another --out$"):
        run_plan(made({}), tmp_path / "b", store=address, budget=5.0, report=silent)


@pytest.mark.usefixtures("stubbed")
def test_variants_that_are_written_otherwise_are_those_of_the_store(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/kept"
    methods = "none,eca:kernel_size=[3,5,5,7]"
    run_plan(made({"methods": f"{methods},se"}), tmp_path / "a", store=address, report=silent)
    shutil.rmtree(tmp_path / "kept" / "runs")
    file = tmp_path / "kept" / "plan.json"
    file.write_text(file.read_text().replace('"3,5,5,7"', "[3, 5, 5, 7]"))
    results = run_plan(made({"methods": methods}), tmp_path / "b", store=address, report=silent)
    assert [row.name for row in results.rows] == ["none", "eca:kernel_size=[3,5,5,7]", "se"]


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize("here", [True, False], ids=["in-the-folder", "in-the-store-alone"])
def test_a_finished_table_that_grows_has_been_looked_at(here: bool, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/kept"
    run_plan(made({}), tmp_path / "a", store=address, report=silent)
    grown = run_plan(made({"seeds": 4}), tmp_path / ("a" if here else "b"), store=address, report=silent)
    assert grown.plan.looks == (2,)


@pytest.mark.usefixtures("stubbed")
def test_a_budget_is_that_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured once, wherever the first command was given."""
    address = f"file://{tmp_path}/kept"
    monkeypatch.setattr(experiment, "_within", lambda plan, budget, *more: replace(plan, budget=budget, changes=LESS))
    run_plan(made({}), tmp_path / "a", store=address, budget=5.0, report=silent)
    monkeypatch.setattr(experiment, "_within", None)
    results = run_plan(made({}), tmp_path / "b", store=address, budget=5.0, report=silent)
    assert (results.plan.budget, results.plan.changes) == (5.0, LESS)
    with pytest.raises(
        UsageError, match=rf"^--store {address} holds a comparison with a budget of 5 .*another --store"
    ):
        run_plan(made({}), tmp_path / "c", store=address, budget=6.0, report=silent)
    assert not (tmp_path / "c").exists()


@pytest.mark.usefixtures("stubbed")
def test_what_is_no_comparison_is_not_mixed_with_one(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/kept"
    run_plan(made({}), tmp_path / "a", store=address, report=silent)
    write(tmp_path / "photos", {"cat.png": "a cat"})
    with pytest.raises(UsageError, match="photos exists and is no comparison"):
        run_plan(made({}), tmp_path / "photos", store=address, report=silent)
    assert read(tmp_path / "photos") == {"cat.png": "a cat"}
    (tmp_path / "kept" / "plan.json").unlink()
    with pytest.raises(UsageError, match=rf"--store {address} holds runs but no plan.json"):
        run_plan(made({}), tmp_path / "a", store=address, report=silent)
    (tmp_path / "kept" / "plan.json").write_text("{")
    with pytest.raises(ExciteError, match=rf"^--store {address}/plan.json is broken"):
        run_plan(made({}), tmp_path / "a", store=address, report=silent)


@pytest.mark.usefixtures("stubbed")
def test_runs_in_a_store_that_were_made_otherwise_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/kept"
    run_plan(made({}), tmp_path / "a", store=address, report=silent)
    config = tmp_path / "kept" / "runs" / "eca-seed0" / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.1", "lr: 0.7"))
    before = read(tmp_path / "kept")
    with pytest.raises(UsageError, match=r"eca, seed 0 was made with --lr 0.7, and none, seed 0 with --lr 0.1"):
        run_plan(made({"seeds": 3}), tmp_path / "b", store=address, report=silent)
    assert read(tmp_path / "kept") == before


def test_another_machine_goes_on_to_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first machine dies in the second epoch of its second run; the second one has nothing but the address."""

    class DeathError(BaseException):
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
