"""Comparisons whose processes, workers and nodes are killed: no run is lost or made twice, the table is the same."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from excite.comparison import Plan, Results, collect, run_plan
from excite.comparison.cluster import measure_on_ray
from excite.comparison.plan import make_plan

pytestmark = pytest.mark.slow
GRID = {"methods": "none,se,eca,srm", "seeds": 3}
SMALL = {"epochs": 2, "limit_train": 96, "limit_val": 60}
TINY = {"epochs": 1, "limit_train": 32, "limit_val": 10, "batch_size": 32}
EACH = 25  # runs that end between two deaths


def table(results: Results) -> list[tuple[object, ...]]:
    """What does not depend on the clock."""
    curves = [{s: [(e["train_loss"], e["val_top1"]) for e in c] for s, c in r.curves.items()} for r in results.rows]
    return [(r.name, r.top1, r.top5, r.gain, c) for r, c in zip(results.rows, curves, strict=True)]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are taken in the same order wherever a run is trained."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_grid_of_twelve_runs_that_is_killed_again_and_again(tmp_path: Path) -> None:
    whole = run_plan(make_plan(**GRID, train=SMALL), tmp_path / "whole", report=lambda line: None)
    words = [w for name, value in SMALL.items() for w in (f"--train.{name}", str(value))]
    call = [sys.executable, "-m", "excite", "compare", "--methods", GRID["methods"], "--seeds", "3", *words]
    folder, chance = tmp_path / "killed", random.Random(0)
    kills = 0
    for wanted in (1, 3, 6, 9, 11):  # runs that are there when it is killed, and a moment more
        process = subprocess.Popen([*call, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(folder.glob("runs/*/summary.json"))) < wanted:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1.0))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 4
    done = subprocess.run([*call, "--out", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert table(collect(folder)) == table(whole)
    assert (folder / "results.md").read_text().splitlines()[0] == (
        tmp_path / "whole/results.md"
    ).read_text().splitlines()[0]


def in_background(work: Callable[[threading.Event], None]) -> tuple[threading.Thread, threading.Event]:
    """Start `work`; it ends when the event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), daemon=True)
    thread.start()
    return thread, ended


def workers() -> list[int]:
    """Processes of this machine that Ray names after the task they run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            if title.startswith(b"ray::_task"):
                found.append(int(entry.name))
    return found


def ended_once(lines: list[str], plan: Plan) -> None:
    """Every run of a plan was told to have ended, once."""
    names = Counter(line.partition(": ")[2].partition(": top-1")[0] for line in lines if ": top-1" in line)
    assert names == Counter(run.name for run in plan.runs(Path("unused")))


@pytest.mark.usefixtures("one_thread")
def test_a_node_that_is_killed_loses_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes that share nothing but an address; one is killed while it trains."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    kept = tmp_path / "kept"
    plan = make_plan("none,eca", seeds=2, train={**SMALL, "epochs": 3})
    alone = run_plan(plan, tmp_path / "alone", report=lambda line: None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    killed = []

    def kill(ended: threading.Event) -> None:
        while not ended.is_set():
            if len(list(kept.glob("runs/*/checkpoints/last.ckpt"))) >= 2:  # both nodes are at work
                cluster.remove_node(second, allow_graceful=False)
                killed.append(second)
                return
            time.sleep(0.05)

    lines: list[str] = []
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        paces, at_once = measure_on_ray(plan, cluster.address)  # for --budget
        thread, ended = in_background(kill)
        results = run_plan(plan, tmp_path / "driver", ray=cluster.address, store=f"file://{kept}", report=lines.append)
        ended.set()
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert at_once == 2
    assert [pace.train > 0 for pace in paces] == [True, True]
    assert killed, "no node was killed, so nothing was tested"
    assert any("its worker died" in line for line in lines), lines
    assert results.complete
    assert table(results) == table(alone)
    ended_once(lines, plan)


@pytest.mark.timeout(3000)  # seconds: each of its deaths costs a worker's start, which takes long on a busy machine
def test_two_hundred_runs_with_a_worker_that_is_killed_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run is lost or made twice, and the driver's memory does not grow with the runs.

    A worker is killed whenever so many runs have ended: by the clock, a slow machine would kill each at its start.
    """
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    plan = make_plan("none,eca", seeds=100, train=TINY)
    lines: list[str] = []
    memory: list[int] = []
    kills = []

    def note(line: str) -> None:
        lines.append(line)
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    def kill(ended: threading.Event) -> None:
        while not ended.wait(0.02):
            if len(lines) > EACH * (len(kills) + 1):
                for pid in workers()[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        kills.append(pid)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        thread, ended = in_background(kill)
        results = run_plan(plan, tmp_path / "c", ray="auto", report=note)
        ended.set()
        thread.join()
    finally:
        ray.shutdown()
    assert len(kills) >= 6
    assert sum("its worker died" in line for line in lines) >= 3
    assert results.complete
    assert all(len(curve) == 1 for row in results.rows for curve in row.curves.values())
    ended_once(lines, plan)
    assert memory[-1] - memory[len(memory) // 4] < 64 * 2**20
