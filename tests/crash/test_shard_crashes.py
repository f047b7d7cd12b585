"""Writing shards that dies at any file operation, or at random moments, goes on to the same bytes."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from crashing import DIED, FEW, KILLED, Warm
from PIL import Image

from excite.common.files import LOCK, locked
from excite.data.shards import verify

Reference = tuple[list[str], dict[str, bytes], list[str]]


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.name != LOCK}


@pytest.fixture(scope="module")
def reference(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The command, the shards of an undisturbed process, and its file operations."""
    folder = tmp_path_factory.mktemp("shards")
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            place = folder / "data" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    command = ["shards", f"imagefolder:{folder / 'data'}", "--shard-size", "3", "--workers", "0"]
    assert warm.run(*command, "--out", folder / "out", folder=folder, root=str(folder)) == 0, warm.output
    assert verify(folder / "out").samples == 12
    return command, content(folder / "out"), warm.operations


def die_and_go_on(warm: Warm, reference: Reference, folder: Path, at: int) -> None:
    command, whole, _ = reference
    out = folder / str(at)
    assert warm.run(*command, "--out", out, folder=folder, root=str(folder), kill_at=at) == DIED, warm.output
    assert warm.run(*command, "--out", out, folder=folder) == 0, warm.output
    assert content(out) == whole


def test_some_points(warm: Warm, reference: Reference, tmp_path: Path) -> None:
    last = len(reference[2])
    for at in sorted({1, last, *random.Random(0).sample(range(1, last + 1), FEW - 2)}):
        die_and_go_on(warm, reference, tmp_path, at)


@pytest.mark.slow
def test_every_point(warm: Warm, reference: Reference, tmp_path: Path) -> None:
    for at in range(1, len(reference[2]) + 1):
        die_and_go_on(warm, reference, tmp_path, at)
    print(f"shards: {len(reference[2])} file operations")


@pytest.mark.slow
def test_random_moments(warm: Warm, reference: Reference, tmp_path: Path) -> None:
    """With two threads at work, each process killed, and what it left gone on with, until one comes to the end."""
    command, whole, _ = reference
    command = [*command[:-1], "2"]
    started = time.monotonic()
    assert warm.run(*command, "--out", tmp_path / "whole", folder=tmp_path) == 0, warm.output
    took = time.monotonic() - started
    chance, hits = random.Random(0), 0
    for number in range(15):
        out = tmp_path / str(number)
        for _ in range(2):
            pid = warm.start(*command, "--out", out, folder=tmp_path)
            if warm.wait(pid, chance.uniform(0.1, 0.8) * took) is None:
                warm.kill(pid)
                hits += warm.wait(pid) == KILLED
        assert warm.run(*command, "--out", out, folder=tmp_path) == 0, warm.output
        assert content(out) == whole
    print(f"shards: {hits} kills")
    assert hits >= 10


def test_two_writers(warm: Warm, reference: Reference, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    lock = locked(out, "busy")
    assert lock is not None
    assert warm.run(*reference[0], "--out", out, folder=tmp_path) == 2
    assert "another process is writing these shards" in warm.output
    assert [path.name for path in out.iterdir()] == [LOCK]
    lock.close()
    assert warm.run(*reference[0], "--out", out, folder=tmp_path) == 0
    assert content(out) == reference[1]


def test_no_room(warm: Warm, reference: Reference, tmp_path: Path) -> None:
    command, whole, _ = reference
    assert warm.run(*command, "--out", tmp_path / "out", folder=tmp_path, fsize=5000) == 1
    assert "cannot write" in warm.output
    assert "Traceback" not in warm.output
    assert warm.run(*command, "--out", tmp_path / "out", folder=tmp_path) == 0
    assert content(tmp_path / "out") == whole
