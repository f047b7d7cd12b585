"""The processes that read images: as many as were asked for, and gone when the run is."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from excite.engine.process import end_with
from excite.engine.sampling import Readers, SplitLoader
from imagesets import image_folder

TRAIN = [
    "--epochs",
    "40",
    "--batch-size",
    "4",
    "--size",
    "24",
    "--augment",
    "resized-crop",
    "--device",
    "cpu",
    "--quiet",
]
DETECT = ["--epochs", "40", "--batch-size", "2", "--device", "cpu", "--quiet", "--pictures", "0", "--min-size", "64"]
SMALL = ["--options.width", "8", "--options.neck_channels", "16", "--options.head_channels", "16"]


def descendants(pid: int) -> dict[int, str]:
    """Return the living processes below one, with their command lines."""
    parents, found, new = {}, {pid}, True
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if words[0] != "Z":
                parents[int(folder.name)] = int(words[1])
        except (OSError, IndexError):
            continue
    while new:
        new = {child for child, parent in parents.items() if parent in found} - found
        found |= new
    return {child: command(child) for child in found - {pid}}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    try:
        return (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split())[0] not in "ZX"
    except OSError:
        return False


def wait_until(wanted: Callable[[], bool]) -> None:
    """Wait as long as it takes; what never comes meets the test's own limit."""
    while not wanted():
        time.sleep(0.2)


def readers(pid: int) -> int:
    """Return how many processes below one read: not those that fork them, nor the tracker of shared memory."""
    below = descendants(pid)
    return sum("resource_tracker" not in words and not descendants(child) for child, words in below.items())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")
@pytest.mark.parametrize("kind", ["train", "detect"])
def test_a_run_has_as_many_as_asked_for_and_leaves_none(tmp_path: Path, kind: str) -> None:
    if kind == "train":
        data = f"imagefolder:{image_folder(tmp_path, per_class=8)}"
        words = ["train", "resnet20", "--options.width", "4", "--data", data, *TRAIN]
    else:
        words = ["detect", "train", "--data", "shapes:size=64,train=8,val=4", *SMALL, *DETECT]
    run = tmp_path / "run"
    program = subprocess.Popen([sys.executable, "-m", "excite", *words, "--workers", "2", "--out", str(run)])
    metrics = run / "metrics.csv"

    def validated() -> bool:
        return program.poll() is not None or (metrics.is_file() and metrics.read_text().count("\n") > 2)

    try:
        wait_until(validated)
        assert program.poll() is None, "the run ended early"
        below = descendants(program.pid)
        assert readers(program.pid) == 2, below
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    wait_until(lambda: not any(map(alive, below)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("watched", [True, False], ids=["told by the system", "polled"])
def test_a_process_ends_with_the_one_it_names(watched: bool) -> None:
    """Even where another process, which lives on, forked it."""
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child = os.fork()
    if not child:
        if not watched:
            del os.pidfd_open
        end_with(parent.pid)
        time.sleep(600)
        os._exit(1)
    time.sleep(0.5)
    assert alive(child)
    parent.kill()
    parent.wait()
    os.waitpid(child, 0)  # returns long before the child would end by itself, or meets the test's own limit


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_splits_take_turns(workers: int) -> None:
    """In as many processes as were asked for, all splits together, which end with the readers."""
    others = set(descendants(os.getpid()))
    data = {"train": [[1], [2], [3], [4], [5]], "val": [[10], [20], [30]]}
    readers = Readers(data, lists, workers)  # type: ignore[arg-type]  # lists are data sets
    train, val = SplitLoader(readers, "train", range(5), 2, drop_last=True), SplitLoader(readers, "val", range(3), 2)
    assert (len(train), len(val)) == (2, 2)
    for _ in range(2):
        assert list(train) == [[[1], [2]], [[3], [4]]]
        assert list(val) == [[[10], [20]], [[30]]]
        begun = iter(train)
        assert next(begun) == [[1], [2]]
        assert list(val) == [[[10], [20]], [[30]]]
        with pytest.raises(RuntimeError, match="another reading"):
            next(begun)
        assert len(set(descendants(os.getpid())) - others) == workers
    del readers, train, val, begun
    gc.collect()
    wait_until(lambda: not set(descendants(os.getpid())) - others)


def test_reading_draws_nothing_from_the_networks_generator() -> None:
    loader = SplitLoader(Readers({"train": [1, 2, 3]}, lists, 0), "train", range(3), 2)  # type: ignore[arg-type]
    before = torch.get_rng_state()
    assert list(loader) == [[1, 2], [3]]
    assert torch.equal(torch.get_rng_state(), before)


def lists(items: list) -> list:
    return list(items)
