"""A run that dies at any file operation goes on to the same end, bit for bit."""

import random
from pathlib import Path

import pytest
from crashing import DIED, FEW, TRAIN, Warm, go_on, same_run


def die_and_go_on(warm: Warm, reference: Path, folder: Path, at: int) -> None:
    run = folder / "run"
    assert warm.run(*TRAIN, "--out", run, folder=folder, root=str(folder), kill_at=at) == DIED, warm.output
    go_on(warm, TRAIN, run)
    same_run(reference, run)


def test_some_points(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path) -> None:
    whole, operations = reference
    for at in [*sorted(random.Random(0).sample(range(1, len(operations) + 1), FEW - 2)), 1, len(operations)]:
        (tmp_path / str(at)).mkdir()
        die_and_go_on(warm, whole, tmp_path / str(at), at)


def test_between_last_and_best(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path) -> None:
    """After each epoch: last.ckpt is there, best.ckpt still that of an earlier epoch or not there at all."""
    whole, operations = reference
    points = [n for n, text in enumerate(operations, 1) if text.startswith("copyfile")]
    assert points
    for at in points:
        (tmp_path / str(at)).mkdir()
        die_and_go_on(warm, whole, tmp_path / str(at), at)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_point(warm: Warm, reference: tuple[Path, list[str]], tmp_path: Path) -> None:
    whole, operations = reference
    for at in range(1, len(operations) + 1):
        (tmp_path / str(at)).mkdir()
        die_and_go_on(warm, whole, tmp_path / str(at), at)
