"""Tuning of allocator and threads."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from excite import runtime
from excite.errors import UsageError

GLIBC = platform.libc_ver()[0] == "glibc"
FAULTS = """
import resource, sys
from excite.runtime import tune
if sys.argv[1] == "tuned": print(tune())
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = b"x" * (40 << 20)
before = faults()
for _ in range(5):
    block = b"x" * (40 << 20)
print(faults() - before)
"""


def faults(kind: str) -> int:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", FAULTS, kind], env=clean, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(not GLIBC, reason="only glibc is tuned")
def test_tuned_process_reuses_its_pages() -> None:
    tuned, untuned = faults("tuned"), faults("untuned")
    assert untuned > 4 * (40 << 20) / resource.getpagesize()  # a fault for every page of every new block
    assert tuned < untuned / 2


@pytest.mark.skipif(not GLIBC, reason="only glibc is tuned")
def test_own_settings_of_the_environment_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not runtime.keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not runtime.keep_freed_memory()


def test_quota_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert runtime.cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert runtime.cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert runtime.cpu_quota(tmp_path) == 0.5
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runtime, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert runtime.match_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert runtime.match_threads() is None  # set by now: respected
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_no_tune_is_taken_anywhere_and_leaves_the_process_alone() -> None:
    probe = (
        "import sys, excite.cli.main as m\n"
        "m.tune = lambda: print('TUNED')\n"
        "sys.argv = ['excite', *sys.argv[1:]]\n"
        "sys.exit(m.main())\n"
    )
    for args, tuned in (
        (["--version"], True),
        (["--no-tune", "--version"], False),
        (["--version", "--no-tune"], False),
    ):
        done = subprocess.run([sys.executable, "-c", probe, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("TUNED" in done.stdout) == tuned


@pytest.mark.parametrize("gpu", [True, False])
def test_one_answer_to_which_device(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert runtime.pick_device("auto") == ("cuda" if gpu else "cpu")
    assert runtime.pick_device("cpu") == "cpu"
    if gpu:
        assert runtime.pick_device("cuda") == "cuda"
    else:
        with pytest.raises(UsageError, match="--device cuda: torch finds no GPU here; use --device cpu"):
            runtime.pick_device("cuda")
    for name in ("tpu", "gpu", "cuda:1", ""):
        with pytest.raises(UsageError, match="unknown device"):
            runtime.pick_device(name)
