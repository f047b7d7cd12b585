"""The benchmark of compiled steps: its forms compute the same, and its verdict follows from its rows."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from excite.measure.bench.timing import Timing
from excite.ops.tail import operators


@pytest.fixture(scope="module")
def script() -> Any:
    before = list(sys.path)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    yield importlib.import_module("compiled")
    sys.path[:] = before


@pytest.mark.parametrize("rectified", [True, False])
def test_the_closed_form_is_the_operators(script: Any, rectified: bool) -> None:
    torch.manual_seed(0)
    z, r = torch.randn(3, 4, 5, 6).double(), torch.randn(3, 4, 5, 6).double()
    gamma, beta, w = torch.randn(4).double(), torch.randn(4).double(), torch.rand(3, 4).double()
    one, two = (
        operators.standardise(z, gamma, beta, 1e-5, False),
        script.closed_standardise(z, gamma, beta, 1e-5, False),
    )
    for a, b in zip(one[2:7], two[2:7], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(one[8], two[8])
    outputs = [
        f(z, *ends[:2], *ends[2:5], w, r, rectified) for f, ends in ((operators.tail, one), (script.closed_tail, two))
    ]
    torch.testing.assert_close(*outputs)


def test_a_gain_is_taken_within_each_round(script: Any) -> None:
    plain, modules, form = (
        Timing("p", 1, [1.0, 2.0, 4.0] * 2),
        Timing("m", 1, [1.1, 2.2, 4.4] * 2),
        Timing("f", 1, [1.05, 2.1, 4.2] * 2),
    )
    assert script.gain(modules, form, plain) == [5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ([[3.0, 1.0, 5.0], [2.0, 0.1, 4.0]], "keep"),
        ([[3.0, 1.0, 5.0], [1.9, 0.1, 4.0]], "step aside"),
        ([[3.0, -0.1, 5.0]], "step aside"),
        ([], "step aside"),
    ],
)
def test_a_form_is_kept_where_every_row_gains(script: Any, gains: list[list[float]], word: str) -> None:
    rows = [["net", 1.0, None, None, None, value, [9.0, 8.0, 10.0]] for value in gains]
    said = script.verdicts(rows)
    assert said["operators, verdict"].startswith(word)
    assert said["closed form, verdict"].startswith("keep" if rows else "step aside")


@pytest.mark.slow
def test_a_row_is_measured_once(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "compiled.json"
    name = "resnet18, float32, NHWC"
    given = ["--small", "--rounds", "6", "--batch", "2", "--side", "16", "--backend", "aot_eager"]
    given += ["--only", name, "--out", str(out)]
    script.main(given)
    (row,) = json.loads(out.read_text())["tables"][script.TABLE]["rows"]
    assert row[0] == "resnet18, float32, NHWC"
    assert all(low <= value <= high for value, low, high in row[2:])
    monkeypatch.setattr(script, "measured", None)
    script.main(given)
