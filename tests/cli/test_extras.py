"""The core is light: what works without extras, and what says which extra it needs."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from excite.common.extras import EXTRA_OF, EXTRAS, SILENCED, explain, missing, require
from excite.errors import UsageError

ROOT = Path(__file__).parents[2]
BARE = Path(__file__).parent / "bare.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

WORKS = ["list", "show eca", "show svg", "env", "completion", "profile", "tables", "bench", "import", "predict"]
WORKS += ["export", "train help"]
NEEDS = {
    "train": ["train"],
    "test": ["train"],
    "compare": ["train"],
    "detect train": ["detect", "train"],
    "detect test": ["detect", "train"],
    "detect predict": ["detect", "train"],
    "explain": ["explain", "train"],
    "robustness": ["robustness", "train"],
    "demo": ["demo", "explain", "train"],
    "export onnx": ["export"],
    "export openvino": ["export"],
    "bench onnxruntime": ["export"],
    "bench plot": ["train"],
    "profile timm": ["timm"],
}


def distributions(extra: str) -> set[str]:
    lines = PROJECT["optional-dependencies"][extra]
    return {re.split(r"[><=\[]", line)[0].replace("-", "_") for line in lines if not line.startswith("excite")}


def check(result: dict) -> None:
    library, commands = result["library"], result["commands"]
    assert library["attention"] == [2, 8, 5, 5]
    assert library["attached"] == 1
    assert library["imported"] is True
    assert library["timm"] == "this needs timm: pip install 'excite[timm]'"
    assert set(commands) == {*WORKS, *NEEDS}
    assert {name: commands[name] for name in WORKS if commands[name][0] != 0} == {}
    for name, extras in NEEDS.items():
        code, message = commands[name]
        assert code == 2, f"{name}: {message}"
        assert len(message.splitlines()) == 1
        assert any(f"pip install 'excite[{extra}]'" in message for extra in extras), f"{name}: {message}"


def test_the_table_is_that_of_the_project() -> None:
    spelt = {"sklearn": "scikit_learn", "mlflow": "mlflow_skinny"}
    for extra, modules in EXTRAS.items():
        assert {spelt.get(m, m) for m in modules} == distributions(extra), extra
    assert set(PROJECT["optional-dependencies"]) == {*EXTRAS, "all"}
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(everything.removeprefix("excite[").removesuffix("]").split(",")) == set(EXTRAS)


def test_the_core_is_these_eight() -> None:
    core = {re.split(r"[><=\[]", line)[0] for line in PROJECT["dependencies"]}
    assert core == {"torch", "torchvision", "numpy", "pillow", "pyyaml", "safetensors", "jsonargparse", "rich"}


@pytest.mark.parametrize("module", sorted(EXTRA_OF))
def test_a_missing_library_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs {module}: pip install 'excite\[{EXTRA_OF[module]}\]'"):
        require(module)
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(module)
    assert str(explain(caught.value)) == str(missing(module))


@pytest.mark.parametrize("module", sorted(SILENCED))
def test_libraries_are_told_not_to_report(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module in EXTRA_OF
    for name, value in SILENCED[module].items():
        monkeypatch.setattr("excite.common.extras.find_spec", lambda _: object())
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
        require(module)
        assert os.environ[name] == value
        monkeypatch.setenv(name, "the user's")
        require(module)
        assert os.environ[name] == "the user's"


@pytest.mark.slow
def test_every_library_that_reports_is_told() -> None:
    """Of the libraries that are here: those whose sources name a service for such reports, or a switch against them."""
    words = re.compile(rb"google-analytics\.com|usage[_-]?stats_enabled|ANALYTICS_ENABLED|DISABLE_TELEMETRY|posthog")
    quiet = {"openvino", "onnxruntime", "wandb"}  # only in `convert_model`; on Windows alone; what it is for
    reporting = set()
    for module in sorted(set(EXTRA_OF) - quiet):
        spec = importlib.util.find_spec(module)
        files = Path(spec.origin).parent.rglob("*.py") if spec is not None and spec.origin else ()
        if any(words.search(file.read_bytes()) for file in files):
            reporting.add(module)
    assert reporting <= set(SILENCED)


def test_other_failed_imports_are_not_explained() -> None:
    assert explain(ModuleNotFoundError("no module", name="excite.nowhere")) is None
    assert explain(ModuleNotFoundError("no module")) is None


def test_every_optional_import_is_in_the_table() -> None:
    """Imports of our code are the standard library, the core, or in the table."""
    core = {"torch", "torchvision", "numpy", "PIL", "yaml", "safetensors", "jsonargparse", "rich", "excite", "triton"}
    core |= set(sys.stdlib_module_names)
    unknown = {}
    for file in (ROOT / "src" / "excite").rglob("*.py"):
        text = re.sub(r'"""[\s\S]*?"""', "", file.read_text())
        names = re.findall(r"^\s*(?:import ([a-zA-Z_]\w*)|from ([a-zA-Z_]\w*)[\w.]* import)", text, re.MULTILINE)
        foreign = {a or b for a, b in names} - core - set(EXTRA_OF)
        if foreign:
            unknown[file.name] = foreign
    assert unknown == {}


def test_without_the_libraries_of_the_extras(tmp_path: Path) -> None:
    command = [sys.executable, str(BARE), str(tmp_path), "hide"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_the_core_alone_in_a_new_environment(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    assert uv, "this test builds an environment with uv"
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", str(python), str(ROOT)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(BARE), str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout.splitlines()[-1]))
    script = [str(python.parent / "excite"), "show", "eca"]
    assert "ECA" in subprocess.run(script, capture_output=True, text=True, check=True, env=environment).stdout
