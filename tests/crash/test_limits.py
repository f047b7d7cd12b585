"""What else ends or hinders a run: signals, a full disk, folders that cannot be written, a second writer."""

import os
import signal
from pathlib import Path

import pytest
from crashing import TRAIN, Warm, go_on, same_run

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


@pytest.mark.parametrize("size", [200, 40_000])
def test_no_room(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path, size: int) -> None:
    """Files may not grow beyond a limit, as on a full disk: one line; with room again the run goes on."""
    run = tmp_path / "run"
    assert warm.run(*TRAIN, "--out", run, folder=tmp_path, fsize=size) == 1, warm.output
    one_line(warm.output, "cannot write", str(run))
    go_on(warm, TRAIN, run)
    same_run(reference[0], run)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert warm.run(*TRAIN, "--out", tmp_path / "locked" / "run", folder=tmp_path) == 1
    one_line(warm.output, "cannot", "locked")


@pytest.mark.parametrize("place", ["/proc/run", "file/run", "/dev/full/run"])
def test_a_place_where_there_can_be_no_folder(warm: Warm, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    assert warm.run(*TRAIN, "--out", place, folder=tmp_path) in (1, 2)
    one_line(warm.output, place)
