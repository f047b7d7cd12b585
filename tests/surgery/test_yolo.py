"""ultralytics' YOLO with attention, in a process of its own: no dependency (AGPL), installed for this test."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRIAL = Path(__file__).with_name("yolo_trial.py")


@pytest.mark.slow
def test_yolo_attaches_loads_trains_fuses_and_exports(tmp_path: Path) -> None:
    command = [sys.executable]
    if importlib.util.find_spec("ultralytics") is None:
        if shutil.which("uv") is None:
            pytest.skip("needs ultralytics, or uv to install it for this test")
        command = ["uv", "run", "--with", "ultralytics", "python"]
        if subprocess.run([*command, "-c", "import cv2, ultralytics"], capture_output=True, check=False).returncode:
            pytest.skip("ultralytics cannot be installed here")
    done = subprocess.run([*command, str(TRIAL), str(tmp_path / "work")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=1))
    for name in ("yolov5n", "yolov8n", "yolo11n"):
        entry = result[name]
        assert len(entry["sites"]) == {"yolov5n": 9, "yolov8n": 9, "yolo11n": 10}[name]
        assert entry["host keys kept"]
        assert entry["changes"]
        assert entry["detached"]
    assert result["yolov8n"]["sites"][-4:] == [f"model.{i}.cv2" for i in (12, 15, 18, 21)]
    trained = result["trained"]
    assert trained["attention keys"] == trained["fused keys"] > 0
    assert trained["fused error"] < 1e-4
    assert result["exported error"] < 1e-4
    assert result["attention matters"]
