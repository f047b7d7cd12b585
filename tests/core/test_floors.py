"""The floors of the house: imports run downwards only, files do not import each other, light entrances stay light."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "excite"

# From the ground up; names in one tuple share a floor and may not import one another.
FLOORS = [
    ("errors", "types"),
    ("common", "runtime", "recipes"),
    ("card",),
    ("ops",),
    ("spectral",),
    ("squeezes", "gates"),
    ("attention",),
    ("methods",),
    ("registry",),
    ("inspect",),
    ("backbones",),
    ("surgery",),
    ("pretrained",),
    ("models",),
    ("checkpoints",),
    ("timm",),
    ("data",),
    ("export",),
    ("engine",),
    ("train",),
    ("detect", "explain"),
    ("measure",),  # the published tables have rows of detectors
    ("robustness", "demo", "loading"),  # robustness opens networks as explain does
    ("comparison",),
    ("cli",),
    ("__main__",),
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def floor_of(module: str) -> str:
    """The file or folder of `excite` that a module belongs to."""
    return (module.split(".") + ["__init__"])[1]


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of the package that a module imports, wherever in its text, under TYPE_CHECKING or not."""
    known, names = modules(), set()
    for node in ast.walk(ast.parse(known[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from excite.ops import tail` imports a module, `from excite.ops import attend` a name of one.
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {part if part in known else node.module for part in parts}
    return frozenset(name for name in names if name in known and name != module)


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """The groups of modules that reach each other (Tarjan's strongly connected components of two or more)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            start = stack.index(module)
            group = stack[start:]
            del stack[start:]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return groups


def test_every_package_has_a_floor() -> None:
    missing = {floor_of(m) for m in modules()} - {"__init__"} - set(LEVEL)
    assert not missing, f"without a floor: {sorted(missing)}"


@pytest.mark.parametrize("module", modules())
def test_imports_run_downwards(module: str) -> None:
    own = floor_of(module)
    if own == "__init__":
        return
    for name in {floor_of(other) for other in imports(module)} - {own, "__init__"}:
        assert LEVEL[name] < LEVEL[own], f"{module} imports {name}, which is not below {own}"


def test_files_do_not_import_each_other() -> None:
    """Packages re-export what their files hold, so a file may name its own package's other files only."""
    graph = {m: frozenset(o for o in imports(m) if not m.startswith(o + ".")) for m in modules()}
    groups = circles(graph)
    assert not groups, "files in a circle: " + "; ".join(" -> ".join(group) for group in groups)


def test_a_circle_is_seen() -> None:
    graph = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"a"}), "d": frozenset({"a"})}
    assert circles(graph) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    "module", ["excite", "excite.registry", "excite.backbones.names", "excite.cli", "excite.__main__"]
)
def test_light_entrances_do_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
