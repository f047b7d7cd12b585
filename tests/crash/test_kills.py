"""Runs that are killed at random moments, again and again, end as if nothing had happened."""

import json
import random
import time
from pathlib import Path

import pytest
import torch
from crashing import KILLED, SMALL, TRAIN, Warm, go_on, rows, same, same_run

from excite.common.files import partial_files

TINY = ["--options.width", "8", "--options.neck_channels", "16", "--options.head_channels", "16"]
TINY += ["--options.anchor_sizes", "[8,16,32,64]", "--options.rpn_post_nms_top_n_test", "20", "--min-size", "64"]
DETECT = ["detect", "train", "--data", "shapes:size=64,train=4,val=2", *TINY, "--max-size", "64", "--epochs", "2"]
DETECT += ["--batch-size", "2", "--workers", "0", "--device", "cpu", "--pictures", "0"]
COMPARE = ["compare", "--methods", "none,eca", "--backbone", "resnet20", "--seeds", "1", "--epochs", "2"]
COMPARE += [word.replace("--", "--train.").replace("-", "_").replace("__", "--") for word in SMALL]


def took(warm: Warm, command: list[str], run: Path) -> float:
    """Run a command undisturbed; return the seconds."""
    start = time.monotonic()
    assert warm.run(*command, "--out", run, folder=run.parent) == 0, warm.output
    return time.monotonic() - start


def kill_after(warm: Warm, command: list[str], folder: Path, seconds: float) -> bool:
    """Start a command and kill it; return whether it was still running."""
    pid = warm.start(*command, folder=folder)
    status = warm.wait(pid, seconds)
    if status is None:
        warm.kill(pid)
        return warm.wait(pid) == KILLED
    assert status == 0, warm.output
    return False


def killed_runs(warm: Warm, command: list[str], folder: Path, kills: int, equal) -> int:
    """Kill a run (and those that go on with it) at random moments; return how many kills hit."""
    whole = folder / "whole"
    seconds = took(warm, command, whole)
    chance, hits = random.Random(0), 0
    for number in range(kills):
        run = folder / str(number)
        hits += kill_after(warm, [*command, "--out", str(run)], folder, chance.uniform(0, seconds))
        if number % 3 == 0 and (run / "config.yaml").is_file():  # a second one, of the run that goes on
            verb = command[: command.index("train") + 1]
            hits += kill_after(warm, [*verb, "--resume", str(run)], folder, chance.uniform(0, seconds))
        go_on(warm, command, run)
        equal(whole, run)
    return hits


def same_detection(whole: Path, run: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        one, two = (torch.load(x / "checkpoints" / name, weights_only=True) for x in (whole, run))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            same(one[part], two[part], f"{name}.{part}")
    same(rows(whole / "metrics.csv"), rows(run / "metrics.csv"), "metrics.csv")
    one, two = (json.loads((x / "summary.json").read_text()) for x in (whole, run))
    for summary in (one, two):
        del summary["run"]
    same(one, two, "summary.json")
    assert partial_files(run) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training(warm: Warm, tmp_path: Path) -> None:
    hits = killed_runs(warm, TRAIN, tmp_path, 30, same_run)
    print(f"training: {hits} kills")
    assert hits >= 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_detection(warm: Warm, tmp_path: Path) -> None:
    hits = killed_runs(warm, DETECT, tmp_path, 15, same_detection)
    print(f"detection: {hits} kills")
    assert hits >= 10


def same_comparison(whole: Path, other: Path) -> None:
    runs = sorted(path.parent.relative_to(whole) for path in whole.rglob("metrics.csv"))
    assert runs
    for run in runs:
        for name in ("last.ckpt", "best.ckpt"):
            one, two = (torch.load(x / run / "checkpoints" / name, weights_only=True) for x in (whole, other))
            same(one["state_dict"], two["state_dict"], f"{run}/{name}")
        same(rows(whole / run / "metrics.csv"), rows(other / run / "metrics.csv"), f"{run}")
    assert (whole / "results.csv").is_file()
    one, two = (json.loads((x / "results.json").read_text())["rows"] for x in (whole, other))
    for row_one, row_two in zip(one, two, strict=True):
        for key in ("method", "top1", "top5", "mean", "std", "gain", "curves"):
            same(row_one[key], row_two[key], key)
    assert partial_files(other) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_comparison(warm: Warm, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    seconds = took(warm, COMPARE, whole)
    chance, hits = random.Random(0), 0
    for number in range(6):
        folder = tmp_path / str(number)
        for _ in range(2):
            hits += kill_after(warm, [*COMPARE, "--out", str(folder)], tmp_path, chance.uniform(0, seconds))
        assert warm.run(*COMPARE, "--out", folder, folder=tmp_path) == 0, warm.output
        same_comparison(whole, folder)
    print(f"comparison: {hits} kills")
    assert hits >= 6
