"""The table of detectors that differ in their attention: from the files that finished runs leave."""

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
AP = {"resnet20": [0.50, 0.52], "eca_resnet20": [0.53, 0.56]}


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("detection_gains", ROOT / "benchmarks" / "detection_gains.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "detection_gains", made)
    spec.loader.exec_module(made)
    return made


def finished(folder: Path, ap: float) -> None:
    """What a tested run leaves, as far as the table reads it."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    categories = [{"class": name, "AP50": ap + more} for name, more in (("disc", 0.1), ("ring", 0.3))]
    box = {"AP": ap, "AP50": ap + 0.2, "AP75": ap - 0.1, "per_class": categories}
    (folder / "metrics_test.json").write_text(json.dumps({"box": box, "voc": {"AP50": ap + 0.21}}))


def test_finished_runs_make_the_tables(gains: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in AP.items():
        for seed, ap in enumerate(values):
            finished(tmp_path / "runs" / "shapes-x" / f"{name}-seed{seed}", ap)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    call = ["--backbones", "resnet20,eca_resnet20", "--seeds", "2", "--name", "shapes-x", "--", "--epochs", "2"]
    gains.main(call, docs=tmp_path / "docs")
    content = json.loads((tmp_path / "docs" / "results" / "shapes-x.json").read_text())
    tables = content["tables"]
    plain, eca = tables["test"]["rows"]
    assert plain[1] == pytest.approx([51.0, 1.41421], abs=1e-4)
    assert plain[5:] == [None, None, "baseline"]
    # paired gains 3 and 4: mean 3.5, half width 12.706 x 0.7071 / sqrt(2)
    assert eca[5] == pytest.approx([3.5, -2.853, 9.853], abs=1e-3)
    assert eca[7] == "within noise"
    assert tables["AP by seed"]["rows"] == [["resnet20", 50.0, 52.0], ["eca_resnet20", 53.0, pytest.approx(56.0)]]
    columns = [name for name, _ in tables["AP50 by category"]["columns"]]
    assert columns == ["backbone", "disc", "ring"]
    assert tables["AP50 by category"]["rows"][1][2] == pytest.approx([84.5, 2.1213], abs=1e-4)
    assert "--name shapes-x -- --epochs 2" in content["command"]
    python, script, *recorded = shlex.split(content["command"])
    assert [python, script] == ["python", "benchmarks/detection_gains.py"]
    gains.main(recorded, docs=tmp_path / "docs")  # it runs as it stands
    with pytest.raises(SystemExit, match="holds runs of"):
        gains.main([*recorded[:-1], "3"], docs=tmp_path / "docs")
