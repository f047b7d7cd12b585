"""Runs that fail, and processes that are killed: one run's failure is its own, the others go on, nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from excite import create_model
from excite.cli.main import main
from excite.comparison import Plan, collect, cost, experiment, pool, run_plan, tally
from excite.comparison.budget import Pace
from excite.comparison.execute import attempt, execute, shared_weights
from excite.comparison.plan import Run, make_plan, save
from excite.comparison.store import Store
from excite.comparison.tally import Tally
from excite.comparison.variants import Variant
from excite.errors import ExciteError, UsageError
from excite.measure.profile import profile_model


def plan_of(methods: str = "none,eca,se", seeds: int = 2) -> Plan:
    return make_plan(methods, seeds=seeds, train={"lr": 0.1})


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class OddError(Exception):
    """It can be sent to another process, but not be read there."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one}\n{two}")


def note(run: Run, word: str) -> None:
    """Tell the test what happens in another process."""
    with (run.folder.parent.parent / "log").open("a") as log:
        log.write(f"{word} {run.name}\n")


def until_noted(run: Run, line: str) -> None:
    log = run.folder.parent.parent / "log"
    for _ in range(1200):
        if line in log.read_text().splitlines():
            return
        time.sleep(0.05)
    raise AssertionError(f"never noted: {line}")


def result(run: Run) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.csv").write_text("epoch,train_loss,val_top1\n1,1.0,0.5\n")
    (run.folder / "summary.json").write_text(json.dumps({"last_top1": 0.5, "last_top5": 1.0, "seconds": 1.0}))


def deadly(plan: Plan, run: Run, store: Store | None = None) -> None:
    """ECA with seed 0 always kills its process, SE with seed 1 once; ECA with seed 1 fails."""
    note(run, "start")
    tries = (run.folder.parent.parent / "log").read_text().count(f"start {run.name}\n")
    if run.name == "eca, seed 0" or (run.name == "se, seed 1" and tries < 2):
        killed()
    if run.name == "eca, seed 1":
        raise OddError("beyond", "repair")
    time.sleep(0.2)
    result(run)
    note(run, "end")


def deadly_beside(plan: Plan, run: Run, store: Store | None = None) -> None:
    """The same; the first two runs wait for each other, so that one is at work when its neighbour dies."""
    note(run, "here")
    if run.name == "none, seed 0":
        until_noted(run, "start eca, seed 0")
        time.sleep(0.5)
    elif run.name == "eca, seed 0":
        until_noted(run, "here none, seed 0")
    deadly(plan, run, store)


def later_killed(plan: Plan, run: Run, store: Store | None = None) -> None:
    """The process dies a moment after its first run has ended."""
    note(run, "start")
    result(run)
    if run.name == "none, seed 0":
        threading.Timer(0.1, killed).start()


def no_pace(plan: Plan, variant: Variant) -> Pace:
    killed()
    raise AssertionError


def ready(folder: Path, plan: Plan) -> list[Run]:
    folder.mkdir()
    (folder / "log").touch()
    return plan.runs(folder)


def test_a_run_that_kills_its_process_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are neither stopped nor trained again, and whoever died is tried again when nobody else is at work."""
    monkeypatch.setattr(pool, "execute", deadly_beside)
    monkeypatch.setattr(tally, "MOST_DEATHS", 2)
    runs, lines = ready(tmp_path / "c", plan_of()), list[str]()
    failures = pool.train_in_processes(plan_of(), runs, 2, lines.append)
    assert {run.name: reason for run, reason in failures} == {
        "eca, seed 0": "its worker died 2 times",
        "eca, seed 1": "OddError: beyond",
    }
    assert {run.name for run in runs if run.finished} == {"none, seed 0", "se, seed 0", "none, seed 1", "se, seed 1"}
    log = (tmp_path / "c" / "log").read_text().splitlines()
    starts = [log.count(f"here {run.name}") for run in runs]
    assert dict(zip((run.name for run in runs), starts, strict=True)) == {
        "none, seed 0": 1, "eca, seed 0": 2, "se, seed 0": 1, "none, seed 1": 1, "eca, seed 1": 1, "se, seed 1": 2
    }  # fmt: skip
    first_round = log.index("end none, seed 1")
    again = [log.index("start eca, seed 0", log.index("start eca, seed 0") + 1), log.index("end se, seed 1")]
    assert min(again) > first_round
    assert lines.count("eca, seed 0: its worker died; it goes on from its last epoch") == 1
    assert [line.split(":")[0] for line in lines if " of 6" in line] == [f"{n} of 6" for n in range(1, 7)]


def test_a_process_that_dies_between_two_runs_fails_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "execute", later_killed)
    plan, lines = plan_of("none", seeds=2), list[str]()

    def slow(line: str) -> None:
        lines.append(line)
        time.sleep(1.0)

    runs = ready(tmp_path / "c", plan)
    assert pool.train_in_processes(plan, runs, 1, slow) == []
    assert [line.split(":")[0] for line in lines] == ["1 of 2", "2 of 2"]


def test_a_death_while_the_pace_is_measured_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "measure_pace", no_pace)
    with pytest.raises(ExciteError, match=r"--budget: a process died .* take fewer --jobs than 2"):
        pool.measure_in_processes(plan_of("none", 2), 2)


def test_processes_that_do_not_start_are_said_at_once() -> None:
    """A program that comes from a pipe cannot be read a second time."""
    code = "from excite.comparison.pool import train_in_processes\ntrain_in_processes(None, [], 2, print)\n"
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("excite.errors.ExciteError: --jobs 2: processes of this program do")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ExciteError("one line"), "one line"),
        (UsageError("another --out"), "another --out"),
        (RuntimeError("out of memory\n  at somewhere"), "RuntimeError: out of memory"),
        (MemoryError(), "MemoryError"),
        (KeyError("gain"), "KeyError: 'gain'"),
    ],
)
def test_why_a_run_failed(error: Exception, words: str) -> None:
    def fail() -> None:
        raise error

    assert attempt(fail) == words


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_stops(error: type[BaseException]) -> None:
    def stop() -> None:
        raise error

    with pytest.raises(error):
        attempt(stop)


def test_a_run_that_leaves_no_result_has_failed(tmp_path: Path) -> None:
    """As where nodes of a cluster do not share the folder."""
    one, other = plan_of("none").runs(tmp_path)
    result(other)
    lines: list[str] = []
    counted = Tally(2, lines.append)
    counted.end(one, None)
    counted.end(other, None)
    assert [run.name for run, _ in counted.failures] == ["none, seed 0"]
    assert lines[0].startswith("1 of 2: none, seed 0 failed: ")
    assert "none-seed0 holds no result" in lines[0]
    assert lines[1] == "2 of 2: none, seed 1: top-1 50.00 % in 1 s"


def test_whatever_a_run_raises_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, by the same rule as in processes."""
    monkeypatch.setattr(experiment, "execute", deadly)
    plan, lines = plan_of("none,eca"), list[str]()
    runs = ready(tmp_path / "c", plan)
    failures = experiment._train(plan, [runs[3], runs[2]], 1, None, None, lines.append)
    assert [(run.name, reason) for run, reason in failures] == [("eca, seed 1", "OddError: beyond")]
    assert runs[2].finished
    assert lines[1] == "  failed: OddError: beyond"


def test_a_single_run_that_is_left_has_a_process_of_its_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "execute", deadly)
    monkeypatch.setattr(tally, "MOST_DEATHS", 1)
    plan = plan_of("none,eca")
    runs = ready(tmp_path / "c", plan)
    failures = experiment._train(plan, [runs[1]], 2, None, None, lambda line: None)
    assert [(run.name, reason) for run, reason in failures] == [("eca, seed 0", "its worker died 1 times")]


SMALL = [
    "--methods",
    "none,eca",
    "--seeds",
    "1",
    "--epochs",
    "1",
    "--train.limit_train",
    "64",
    "--train.limit_val",
    "20",
]


@pytest.mark.parametrize("channels", [1, 3])
def test_costs_are_those_of_the_channels_that_are_trained(channels: int, tmp_path: Path) -> None:
    words = ["compare", *SMALL, "--train.channels", str(channels), "--out", str(tmp_path / "c")]
    assert main(words) == 0
    costs = json.loads((tmp_path / "c" / "cost.json").read_text())["costs"]
    three = profile_model(create_model("resnet20", num_classes=10), 16)
    less = (3 - channels) * 9 * 16  # weights of the first convolution, each used at every place of a digit
    assert costs["none"]["parameters"] == three.params - less
    assert costs["none"]["macs"] == three.macs["macs"] - less * 16 * 16


@pytest.mark.parametrize(("backbone", "method"), [("resnet20", "se"), ("resnet20", "se@sites=[layer3]")])
def test_variants_share_the_first_layer_whatever_its_channels(backbone: str, method: str, tmp_path: Path) -> None:
    plan = make_plan(f"none,{method}", backbone, seeds=1, train={"channels": 1})
    one, other = (shared_weights(plan, run, 10) for run in plan.runs(tmp_path))
    torch.manual_seed(0)
    plain = create_model(backbone, num_classes=10, in_channels=1).state_dict()
    assert all(torch.equal(one[key], value) and torch.equal(other[key], value) for key, value in plain.items())


def test_costs_are_those_of_the_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is there is left alone."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    plan = make_plan("none", seeds=1, train={"device": "cpu"})
    assert cost.measure(plan, 10, 8, batch=2, rounds=3, min_time=0.001)["costs"]["none"]["macs"] > 0


@pytest.mark.parametrize("failing", [False, True], ids=["all-trained", "one-failed"])
def test_a_table_without_costs_is_better_than_none(
    failing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_memory(*given: object, **more: object) -> None:
        raise RuntimeError("CUDA out of memory\nand what torch says about it")

    def train(plan: Plan, run: Run, store: Store | None) -> None:
        if failing and run.name == "eca, seed 0":
            raise ExciteError("broken on purpose")
        execute(plan, run, store)

    folder = tmp_path / "c"
    words = ["compare", *SMALL, "--out", str(folder), "--store", f"file://{tmp_path}/kept"]
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "execute", train)
        patch.setattr(cost, "measure", no_memory)
        assert main(words) == 1
    out, err = capsys.readouterr()
    line = "costs were not measured (RuntimeError: CUDA out of memory); the reports go without, the same command tries"
    assert line in out
    assert line in err
    assert ("1 of 2 runs failed (eca, seed 0: broken on purpose)" in err) == failing
    results = json.loads((folder / "results.json").read_text())
    assert results["finished"] == 2 - failing
    assert [row["cost"] for row in results["rows"]] == [None, None]
    for name in ("report.html", "results.md", "results.csv"):
        assert (tmp_path / "kept" / name).read_bytes() == (folder / name).read_bytes()
    assert main(words) == 0
    assert json.loads((folder / "results.json").read_text())["rows"][1]["cost"]["macs"] > 0
    assert (tmp_path / "kept" / "cost.json").is_file()


def test_who_is_interrupted_while_costs_are_measured_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "execute", lambda plan, run, store: result(run))
    monkeypatch.setattr(cost, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan_of("none"), tmp_path / "c", report=lambda line: None)


def test_a_table_grows_until_it_is_clear_without_costs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails once, after the last look: whoever starts again need not train."""

    def no_memory(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(experiment, "execute", lambda plan, run, store: result(run))
    monkeypatch.setattr(cost, "measure", no_memory)
    plan = make_plan("none,eca", seeds=1, until_clear=4, train={"lr": 0.1})
    with pytest.raises(ExciteError, match=r"^costs were not measured \(MemoryError\)"):
        run_plan(plan, tmp_path / "c", report=lambda line: None)
    assert collect(tmp_path / "c").finished == 8


def test_broken_costs_are_known_before_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "execute", None)
    save(plan_of("none"), tmp_path / "c")
    (tmp_path / "c" / "cost.json").write_text("{}")
    with pytest.raises(ExciteError, match=r"cost.json is broken"):
        run_plan(plan_of("none"), tmp_path / "c", report=pytest.fail)


def test_a_store_that_is_lost_at_the_end_hides_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(plan: Plan, run: Run, store: Store | None) -> None:
        (tmp_path / "kept" / "results.md").mkdir(exist_ok=True)  # nothing can be written there
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(experiment, "execute", train)
    monkeypatch.setattr(cost, "load_or_measure", lambda plan, folder, *more: None)
    with pytest.raises(ExciteError, match=r"1 of 1 runs failed \(none, seed 0: RuntimeError.*cost.json"):
        run_plan(plan_of("none", 1), tmp_path / "c", store=f"file://{tmp_path}/kept", report=lambda line: None)
    assert (tmp_path / "c" / "report.html").is_file()
