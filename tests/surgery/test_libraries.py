"""transformers and segmentation_models_pytorch with attention, in a process of their own: no dependencies."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRIAL = Path(__file__).with_name("libraries_trial.py")
LIBRARIES = ("transformers", "segmentation_models_pytorch")


@pytest.mark.slow
def test_other_libraries_networks_take_attention_and_give_it_back() -> None:
    command = [sys.executable]
    if not all(map(importlib.util.find_spec, LIBRARIES)):
        if shutil.which("uv") is None:
            pytest.skip("needs transformers and segmentation_models_pytorch, or uv to install them for this test")
        command = ["uv", "run", *(word for name in LIBRARIES for word in ("--with", name)), "python"]
        imports = f"import {', '.join(LIBRARIES)}"
        if subprocess.run([*command, "-c", imports], capture_output=True, check=False).returncode:
            pytest.skip("the libraries cannot be installed here")
    done = subprocess.run([*command, str(TRIAL)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=1))
    assert len(result) == 4
    for name, entry in result.items():
        assert entry["sites"] >= 4, name
        assert all(entry[key] for key in ("host keys kept", "changes", "trained", "detached")), name
