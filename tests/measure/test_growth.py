"""The benchmark of growth: it resumes, and its picture and table hold every row."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def script() -> Any:
    before = list(sys.path)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    yield importlib.import_module("growth")
    sys.path[:] = before


def test_rows_are_measured_once_and_drawn(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "growth.json"
    given = ["--small", "--rounds", "6", "--min-time", "0", "--out", str(out)]
    script.main([*given, "--only", "batch 1"])
    script.main([*given, "--only", "16x64x14x14, NHWC"])
    tables = {name: t["rows"] for name, t in json.loads(out.read_text())["tables"].items()}
    assert [row[0] for row in tables[script.GROWTH]] == ["batch 1", "batch 16"]
    assert len(tables[script.TRAFFIC]) == len(script.COUNTED)
    for row in tables[script.TRAFFIC]:
        count = sum(script.COUNTED[tuple(row[0].split(": ")[1].split())])
        assert row[2] == pytest.approx(count * 4 * 2 * 8 * 6 * 6 / 1e6, abs=1e-3)
        assert row[4][1] <= row[4][0] <= row[4][2]
    assert out.with_suffix(".png").stat().st_size > 10_000
    monkeypatch.setattr(script, "grown", None)
    script.main([*given, "--only", "batch 1"])


def test_every_axis_and_map_has_its_rows(script: Any) -> None:
    names = list(script.names())
    assert len(names) == len(set(names)) == sum(map(len, script.AXES.values())) + 2 * len(script.MAPS)
    with pytest.raises(SystemExit):
        script.main(["--only", "nothing"])
