"""What people install: a wheel and a source archive, used as a stranger would."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import excite

ROOT = Path(__file__).parents[2]


def test_versions_and_peoples_files_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == excite.__version__
    assert project["license"] == citation["license"]
    changes = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[0] == "Unreleased"
    assert excite.__version__ in changes
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text())
        assert form.stem == "config" or {"name", "description", "body"} <= set(content)


def test_links_of_peoples_files_lead_somewhere() -> None:
    for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), f"{name}: {target}"


@pytest.mark.slow
def test_the_wheel_runs_in_a_bare_environment(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    assert uv, "this test builds with uv"
    subprocess.run([uv, "build", "-q", "--out-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,), (archive,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert "excite/py.typed" in names
    assert any(name.endswith("eca_resnet20.safetensors") for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)
    with tarfile.open(archive) as contents:
        inside = {name.partition("/")[2] for name in contents.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/excite/__init__.py"} <= inside
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", str(python), str(wheel)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def said(*argv: str) -> str:
        command = [str(python.parent / "excite"), *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout

    assert said("--version") == f"excite {excite.__version__}\n"
    assert "emca_eca" in said("list")
    assert "eca_resnet20.cifar10" in said("list", "checkpoints")
    assert said("show", "eca", "--bibtex").startswith("@inproceedings{")
    assert "torch" in said("env")
