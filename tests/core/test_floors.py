"""The floors of the house: imports run downwards only, and the light entrances stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "excite"

# From the ground up; names in one tuple share a floor and may not import one another.
FLOORS = [
    ("errors", "types"),
    ("common", "runtime", "recipes", "card"),
    ("ops",),
    ("spectral",),
    ("squeezes", "gates"),
    ("attention",),
    ("methods",),
    ("registry",),
    ("inspect",),
    ("backbones",),
    ("surgery",),
    ("models",),
    ("checkpoints",),
    ("data",),
    ("export",),
    ("measure",),
    ("engine",),
    ("train",),
    ("detect", "explain"),
    ("robustness", "loading"),  # robustness opens networks as explain does
    ("comparison",),
    ("cli",),
    ("__main__",),
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}

# Imports made at call time, where a floor asks one above it on purpose; each has its reason.
ALLOWED = {
    ("ops", "attention"),  # the fused tail recognises ChannelAttention when it runs
    ("measure", "detect"),  # the detection rows of the published tables
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def floor_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "excite":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("excite.")}
    return names & set(LEVEL)


def test_every_package_has_a_floor() -> None:
    found = {floor_of(p) for p in modules()} - {"__init__"}
    assert found <= set(LEVEL), f"without a floor: {sorted(found - set(LEVEL))}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downwards(path: Path) -> None:
    own = floor_of(path)
    if own == "__init__":
        return
    for name in imported(path):
        if name != own and (own, name) not in ALLOWED:
            assert LEVEL[name] < LEVEL[own], f"{path.name} ({own}) imports {name}, which is not below it"


@pytest.mark.parametrize(
    "module", ["excite", "excite.registry", "excite.backbones.names", "excite.cli", "excite.__main__"]
)
def test_light_entrances_do_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
