"""Damaged and hostile files of every format: read, or refused in one line; never a crash, a hang or a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz.py")


def fuzz(folder: Path, seed: int, start: int, end: int, *more: str) -> tuple[list[str], dict[str, int]]:
    """Return what went wrong and how many mutants there were of each format."""
    failures: list[str] = []
    total: dict[str, int] = {}
    while start < end:
        command = [sys.executable, str(PROGRAM), str(folder), str(seed), str(start), str(end), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if not line.startswith("{"):
                continue  # of a library
            told = json.loads(line)
            if "counts" in told:
                total = {name: total.get(name, 0) + count for name, count in told["counts"].items()}
            else:
                failures.append(f"{told['format']} {told['seed']} {told['number']}: {told['wrong']}")
        if done.returncode == 0:
            break
        number, _, name = (folder / "current").read_text().strip().partition(" ")
        failures.append(
            f"{name.strip()} {seed} {number}: the process ended with {done.returncode}: {done.stderr[-300:]}"
        )
        start = int(number) + 1
    return failures, total


def test_some_mutants(tmp_path: Path) -> None:
    failures, total = fuzz(tmp_path, 1, 0, 130, "short")
    assert sum(total.values()) >= 100
    assert not failures, "\n".join(failures)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_mutants(tmp_path: Path) -> None:
    failures, total = fuzz(tmp_path, 2, 0, 24_000)
    print(total)
    assert sum(total.values()) >= 20_000
    assert not failures, "\n".join(failures)
