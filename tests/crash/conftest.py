"""Fixtures for the tests with crashes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import TRAIN, Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def reference(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The undisturbed training run, and its file operations."""
    folder = tmp_path_factory.mktemp("reference")
    run = folder / "run"
    assert warm.run(*TRAIN, "--out", run, folder=folder, root=str(folder)) == 0, warm.output
    return run, warm.operations
