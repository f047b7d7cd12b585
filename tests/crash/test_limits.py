"""What else ends or hinders a run: signals, a full disk, folders that cannot be written, a second writer."""

import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crashing import TRAIN, Warm, files, go_on, same_run

LONG = [*TRAIN[: TRAIN.index("--epochs")], "--epochs", "500", *TRAIN[TRAIN.index("--epochs") + 2 :]]


def begun(warm: Warm, run: Path, command: list[str], **request: object) -> int:
    """Start a run; return its process once a checkpoint is there."""
    pid = warm.start(*command, "--out", run, folder=run.parent, **request)
    for _ in range(600):
        if (run / "checkpoints" / "last.ckpt").is_file():
            return pid
        assert warm.wait(pid, 0.1) is None, warm.output
    raise AssertionError("no epoch in a minute")


def one_line(text: str, *words: str) -> None:
    errors = [line for line in text.splitlines() if "error" in line.lower()]
    assert len(errors) == 1, text
    assert errors[0].startswith("excite: error: ")
    assert "Traceback" not in text
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals(warm: Warm, tmp_path: Path, sent: signal.Signals) -> None:
    run = tmp_path / "run"
    pid = begun(warm, run, LONG)
    os.kill(pid, sent)
    assert warm.wait(pid) == 130
    one_line(warm.output, f"--resume {run}")


def test_two_writers(warm: Warm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pid = begun(warm, run, LONG)
    try:
        before = (run / "config.yaml").read_bytes()
        for again in (["--resume", run], ["--overwrite", *TRAIN[1:], "--out", run]):
            assert warm.run("train", *again, folder=tmp_path) == 2
            one_line(warm.output, "another process is writing", str(run))
            assert (run / "config.yaml").read_bytes() == before
            assert (run / "checkpoints" / "last.ckpt").is_file()
    finally:
        os.kill(pid, signal.SIGKILL)
        warm.wait(pid)
    # The dead hold nothing.
    assert warm.run("train", "--overwrite", *TRAIN[1:], "--out", run, folder=tmp_path) == 0, warm.output


@pytest.mark.parametrize("size", [700, 40_000])  # less than the configuration has; than a checkpoint
def test_no_room(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path, size: int) -> None:
    """Files may not grow beyond a limit, as on a full disk: one line; with room again the run goes on."""
    run = tmp_path / "run"
    assert warm.run(*TRAIN, "--out", run, folder=tmp_path, fsize=size) == 1, warm.output
    one_line(warm.output, "cannot write", str(run))
    go_on(warm, TRAIN, run)
    same_run(reference[0], run)


def test_a_full_disk(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A file system of its own that is too small for the second checkpoint; with more room the run goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "none", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        run = disk / "run"
        assert warm.run(*TRAIN, "--out", run, folder=tmp_path) == 1, warm.output
        one_line(warm.output, "No space left on device", str(run))
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        go_on(warm, TRAIN, run)
        same_run(reference[0], run)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_written(warm: Warm, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert warm.run(*TRAIN, "--out", locked / "run", folder=tmp_path, plain_user=True) == 1
    one_line(warm.output, "cannot", "locked")
    assert not list(locked.iterdir())


def test_a_run_that_cannot_be_written(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = shutil.copytree(reference[0], tmp_path / "run")
    for folder in (run / "checkpoints", run):
        folder.chmod(0o500)
    for words in (["--resume", run], ["--overwrite", *TRAIN[1:], "--out", run]):
        assert warm.run("train", *words, folder=tmp_path, plain_user=True) == 1, warm.output
        one_line(warm.output, "cannot write", str(run))
    run.chmod(0o300)  # nor read
    assert warm.run(*TRAIN, "--out", run, folder=tmp_path, plain_user=True) == 1, warm.output
    one_line(warm.output, "cannot read", str(run))
    run.chmod(0o700)
    assert files(run) == files(reference[0])


def damaged(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Checkpoints that are read, and cannot be gone on from."""
    yield {"epoch": 0}
    yield {**whole, "epoch": "one"}
    yield {**whole, "state_dict": {}}
    yield {**whole, "optimizer_states": [{}]}
    yield {**whole, "loops": 7}
    rows = next(key for key in whole["callbacks"] if "History" in key)
    yield {**whole, "callbacks": {**whole["callbacks"], rows: {"rows": [{"epoch": "<b>"}]}}}


def test_a_damaged_last_checkpoint(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path) -> None:
    """One line that names it and says what to do; who does that comes to the same end."""
    run = shutil.copytree(reference[0], tmp_path / "run")
    last, best = run / "checkpoints/last.ckpt", run / "checkpoints/best.ckpt"
    whole = last.read_bytes()
    flipped = bytearray(whole)
    with zipfile.ZipFile(last) as archive:  # within the weights: between the parts are bytes that say nothing
        largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
    flipped[whole.index(largest) + len(largest) // 2] ^= 64
    contents = [b"", b"text", whole[: len(whole) // 2], bytes(flipped)]
    for content in damaged(torch.load(last, weights_only=True)):
        torch.save(content, last)
        contents.append(last.read_bytes())
    for content in contents:
        last.write_bytes(content)
        assert warm.run("train", "--resume", run, folder=tmp_path) == 1, (len(content), warm.output)
        one_line(warm.output, f"cannot go on from {last}", f"`cp {best} {last}`")
        assert "weights_only" not in warm.output
    shutil.copyfile(best, last)
    assert warm.run("train", "--resume", run, folder=tmp_path) == 0, warm.output
    same_run(reference[0], run)


@pytest.mark.parametrize("place", ["/proc/run", "file/run", "/dev/full/run"])
def test_a_place_where_there_can_be_no_folder(warm: Warm, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    assert warm.run(*TRAIN, "--out", place, folder=tmp_path) in (1, 2)
    one_line(warm.output, place)
