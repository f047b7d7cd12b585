"""Two processes train as one: run through the command line, as a user would."""

import csv
import json
import os
import subprocess
import sys

import pytest

OPTIONS = {
    "stem": "imagenet", "shortcut": "projection", "width": 8, "neck_channels": 16, "head_channels": 16,
    "anchor_sizes": [8, 16, 32, 64], "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20,
    "box_score_thresh": 0.01,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("held", [0, 1])
def test_two_processes_train_one_run(tmp_path, held):
    out = tmp_path / "run"
    call = ["--data", "shapes:size=64,train=8,val=5", "--options", json.dumps(OPTIONS), "--min-size", "64"]
    call += ["--max-size", "64", "--epochs", "2", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
    call += ["--devices", "2", "--freeze-backbone-epochs", str(held), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "excite", "detect", "train", *call]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(csv.DictReader((out / "metrics.csv").open()))) == 2
    assert done.stdout.count("epoch 2/2") == 1
    results = json.loads((out / "results_val.json").read_text())
    assert len({r["image_id"] for r in results}) <= 5
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    summary = json.loads((out / "summary.json").read_text())
    # The best epoch evaluated by two processes gives what one process finds in its checkpoint.
    assert max(float(r["box_AP"]) for r in rows) == pytest.approx(summary["metrics"]["box"]["AP"], abs=1e-9)
