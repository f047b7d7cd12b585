"""The experiment: fair starts, resuming, reports, bad input."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from excite.cli.main import main
from excite.comparison import Plan, collect, run_plan
from excite.comparison.execute import execute, shared_weights
from excite.comparison.experiment import write_report
from excite.comparison.plan import load, make_plan, save
from excite.comparison.variants import parse
from excite.errors import ExciteError, UsageError
from excite.train.module import Classifier

SMALL = {"epochs": 2, "limit_train": 96, "limit_val": 60}
ARGUMENTS = ["--train.epochs", "2", "--train.limit-train", "96", "--train.limit_val", "60"]


def small(methods: str = "none,eca", seeds: int = 2, **kwargs: object) -> Plan:
    return make_plan(methods, "resnet20", "digits", seeds=seeds, train=SMALL, **kwargs)


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "c"
    run_plan(small(), folder, report=silent)
    return folder


def accuracies(folder: Path) -> list[tuple]:
    return [(r.name, r.top1, r.top5, r.mean, r.std, r.gain, r.curves and strip(r.curves)) for r in collect(folder).rows]


def strip(curves: dict) -> dict:
    return {seed: [(p["train_loss"], p["val_top1"]) for p in rows] for seed, rows in curves.items()}


def test_methods_of_a_seed_share_the_backbones_weights(tmp_path: Path) -> None:
    plan = small("none,se,eca,emca_eca")
    runs = plan.runs(tmp_path)
    weights = {(r.label, r.seed): shared_weights(plan, r, 10) for r in runs}
    plain = weights["none", 0]
    for method in ("se", "eca", "emca_eca"):
        assert all(torch.equal(weights[method, 0][k], v) for k, v in plain.items())
        assert len(weights[method, 0]) > len(plain)
    assert not torch.equal(plain["conv1.weight"], weights["none", 1]["conv1.weight"])


def test_reports(finished: Path) -> None:
    results = collect(finished)
    assert results.complete
    assert [r.name for r in results.rows] == ["none", "eca"]
    assert all(set(r.top1) == {0, 1} for r in results.rows)
    for name in ("results.json", "results.csv", "results.md", "report.html", "gains.png", "costs.png", "curves.png"):
        assert (finished / name).stat().st_size > 0
    page = (finished / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "{{" not in page
    assert page.count("data:image/png;base64,") == 3
    rows = json.loads((finished / "results.json").read_text())["rows"]
    cost = rows[1]["cost"]
    assert cost["parameters"] - rows[0]["cost"]["parameters"] == cost["attention_parameters"] == 9 * 3
    assert rows[0]["cost"]["latency_ratio"] == 1
    header, *lines = (finished / "results.csv").read_text().splitlines()
    assert len(lines) == 2
    assert all(line.count(",") == header.count(",") for line in lines)


def test_a_comparison_that_was_cut_off_ends_with_the_same_table(finished: Path, tmp_path: Path, monkeypatch) -> None:
    """In the second epoch of the second run. `crash/test_kills.py` kills the process, at random moments."""
    folder = tmp_path / "cut"
    step = Classifier.training_step

    def cut(self: Classifier, batch: Any, index: int) -> Any:
        if self.current_epoch == 1 and Path(self.config.out or "").name == "eca-seed0":
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", cut)
    with pytest.raises(KeyboardInterrupt):
        run_plan(small(), folder, report=silent)
    monkeypatch.setattr(Classifier, "training_step", step)
    assert collect(folder).finished == 1
    assert (folder / "runs/eca-seed0/checkpoints/last.ckpt").is_file()
    kept = (folder / "runs/none-seed0/summary.json").read_bytes()
    run_plan(small(), folder, report=silent)
    assert accuracies(folder) == accuracies(finished)
    assert (folder / "runs/none-seed0/summary.json").read_bytes() == kept


def test_report_of_an_unfinished_comparison(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plan, folder = small(), tmp_path / "c"
    save(plan, folder)
    execute(plan, plan.runs(folder)[0])
    assert main(["compare", "--report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "UNFINISHED: 1 of 4" in out
    assert "not finished" in out
    assert "Unfinished: 1 of 4" in (folder / "report.html").read_text()


def test_names_are_printed_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Brackets are no colours, and two long names that start alike stay two."""
    sites = ["eca@sites=[layer3]", "eca@sites=[layer3,layer2.0]", "se:reduction=8@sites=[layer1,layer2,layer3]"]
    scales = [f"emca_eca:stages={stages};blocks={blocks}" for stages in (1, 2) for blocks in (1, "all")]
    ours = replace(parse("eca:kernel_size=[3,5,7]", "resnet20"), label=f"[red]{'a long label ' * 9}")
    plan = make_plan(["none", *sites, *scales, ours, replace(ours, method="se", options={}, label="[/]")], seeds=1)
    save(plan, tmp_path)
    assert main(["compare", "--report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "not finished" in line]
    assert [row[: len(name) + 1] for row, name in zip(rows, plan.names, strict=True)] == [f"{n} " for n in plan.names]


def test_a_report_without_the_baselines_runs_names_no_gain(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(finished, folder)
    for seed in range(2):
        (folder / "runs" / f"none-seed{seed}" / "summary.json").unlink()
    results = write_report(folder)
    assert results.rows[1].verdict == "no seed in common with the baseline"
    json.dumps(results.to_dict(), allow_nan=False)
    assert "nan" not in (folder / "results.md").read_text()
    assert "nan" not in (folder / "results.csv").read_text()


def test_methods_and_seeds_can_be_added(finished: Path, tmp_path: Path) -> None:
    save(small(), tmp_path / "c")
    save(small("none,eca,se", 3), tmp_path / "c")
    assert load(tmp_path / "c").seeds == 3
    for other in (small("eca,none"), small("none"), make_plan("none,eca", "resnet32", train=SMALL)):
        with pytest.raises(UsageError, match="another comparison"):
            save(other, finished)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="no comparison"):
        save(small(), tmp_path / "d")


def test_one_seed_says_why_there_is_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "--methods", "none,se_var1", "--seeds", "1", "--out", str(tmp_path / "c"), *ARGUMENTS]) == 0
    out = capsys.readouterr().out
    assert "One seed: no interval" in out
    assert "[" not in next(line for line in out.splitlines() if line.startswith("se_var1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "none,ecca"], "eca"),
        (["--methods", "none,none"], "twice"),
        (["--backbone", "resnet20,resnet32,resnet20"], "resnet20 is named twice"),
        (["--backbone", "resnet2O"], "resnet20"),
        (["--methods", "none,psa", "--backbone", "mobilenet_v2"], "3x3"),
        (["--seeds", "0"], "at least one"),
        (["--seeds", "10001"], "at most 10000"),
        (["--until-clear", "99999999999"], "--until-clear 99999999999: at most 10000"),
        (["--set", "epochs=1"], "--train.NAME VALUE"),
        (["--train.epohcs", "1"], "epochs"),
        (["--train.seed", "1"], "decides that itself"),
        (["--options.reduction", "8"], "--options.METHOD.NAME VALUE"),
        (["--options.se.reductoin", "8"], "reduction"),
        (["--methods", "none:stem=3,eca:stem=3"], "unknown stem 3; known: cifar, deep, imagenet"),
        (["--jobs", "0"], "jobs"),
        (["--store", "bucket/runs"], "s3://BUCKET/PATH"),
        (["--store", "file://"], "s3://BUCKET/PATH"),
        (["--store", "nothing://bucket"], "nothing"),
        (["--store", "memory://c", "--jobs", "2"], "one process alone"),
        (["--report", "nowhere"], "no comparison"),
        (["--data", "digitz"], "digits"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--out", "c", *arguments] if "--report" not in arguments else ["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch) -> None:
    from excite.comparison import experiment

    def fail(plan, run, store):
        if run.label == "eca":
            raise ExciteError("broken on purpose")
        execute(plan, run, store)

    monkeypatch.setattr(experiment, "execute", fail)
    with pytest.raises(ExciteError, match="broken on purpose"):
        run_plan(small(seeds=1), tmp_path / "c", report=silent)
    assert collect(tmp_path / "c").finished == 1


@pytest.mark.slow
def test_several_processes_give_the_same_table(finished: Path, tmp_path: Path) -> None:
    # As many processes as processors: each has one thread, as this one, so that sums are taken in the same order.
    run_plan(small(), tmp_path / "c", jobs=max(2, os.cpu_count() or 1), report=silent)
    assert accuracies(tmp_path / "c") == accuracies(finished)


@pytest.mark.slow
def test_ray_retries_the_run_of_a_killed_worker(finished: Path, tmp_path: Path, monkeypatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    folder = tmp_path / "c"
    try:
        import threading

        killed: list[int] = []
        ended = threading.Event()

        def killer() -> None:
            while not killed and not ended.is_set():
                if any(folder.glob("runs/*/config.yaml")):
                    for pid in worker_pids():
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return
                time.sleep(0.05)

        thread = threading.Thread(target=killer)
        thread.start()
        run_plan(small(), folder, ray="auto", report=silent)
        ended.set()
        thread.join()
    finally:
        ray.shutdown()
    assert killed, "no worker was killed, so nothing was tested"
    assert collect(folder).complete
    for one, two in zip(collect(finished).rows, collect(folder).rows, strict=True):
        assert one.top1 == two.top1


def worker_pids() -> list[int]:
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


def test_compare_from_python(finished: Path, tmp_path: Path) -> None:
    """The same experiment from Python: the folder goes on where the finished one stands, and nothing is left behind."""
    import excite

    folder = tmp_path / "c"
    shutil.copytree(finished, folder)
    before = torch.get_rng_state()
    results = excite.compare("none,eca", seeds=2, out=folder, report=silent, **SMALL)
    assert results.complete
    assert [row.name for row in results.rows] == ["none", "eca"]
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(UsageError, match="did you mean 'eca'"):
        excite.compare(["none", "ecca"], out=folder, report=silent)
    with pytest.raises(UsageError, match="epohcs"):
        excite.compare(out=tmp_path / "d", report=silent, epohcs=3)


@pytest.mark.parametrize(
    ("given", "epochs"), [({}, 10), ({"epochs": 3}, 3), ({"train": {"epochs": 4}}, 4), ({"data": "cifar10"}, 200)]
)
def test_epochs_of_a_plan(given: dict, epochs: int) -> None:
    plan = make_plan(**given)
    assert plan.config(plan.variants[0], 0, Path("unused")).epochs == epochs
    assert plan.folder == Path(f"compare/resnet20-{given.get('data', 'digits')}")
