"""The notebooks run from top to bottom (with a small budget), and are kept small, without outputs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What the cell of parameters says instead while testing.
BUDGET = {
    "first_steps": "EPOCHS, IMAGES = 1, 128",
    "attach_and_finetune": "EPOCHS, IMAGES, SIZE, PRETRAINED = 2, 128, 32, False",
    "fair_comparison": "METHODS, SEEDS, EPOCHS, IMAGES = 'none,eca', 1, 1, 128",
    "reading_scales": "",
    "your_own_method": "EPOCHS, IMAGES = 1, 128",
}
FAST = "reading_scales"  # nothing is trained in it, so it runs with every test run


def cells(notebook: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def plain(text: str) -> str:
    """The code of a cell as Python: lines for IPython (they install) do nothing."""
    return re.sub(r"^(\s*)%.*$", r"\1pass", text, flags=re.MULTILINE)


def run(notebook: Path) -> dict[str, Any]:
    """Execute the code cells in order, as Jupyter does; return their variables."""
    from excite import registry

    names: dict[str, Any] = {"__name__": "__main__"}
    methods = dict(registry.METHODS)
    try:
        return run_cells(notebook, names)
    finally:  # methods that the notebook registered
        registry.METHODS.clear()
        registry.METHODS.update(methods)


def run_cells(notebook: Path, names: dict[str, Any]) -> dict[str, Any]:
    for i, cell in enumerate(cells(notebook)):
        text = plain(source(cell))
        if "parameters" in cell["metadata"].get("tags", []):
            text += "\n" + BUDGET[notebook.stem]
        exec(compile(text, f"{notebook.name}[{i}]", "exec"), names)
    return names


def test_all_have_a_budget() -> None:
    assert {notebook.stem for notebook in NOTEBOOKS} == set(BUDGET)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_how_it_is_kept(notebook: Path) -> None:
    content = json.loads(notebook.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    assert notebook.stat().st_size < 20_000
    code = cells(notebook)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in code:
        compile(plain(source(cell)), notebook.name, "exec")
    # The first one installs on a new machine, and there alone.
    assert 'if find_spec("excite") is None:\n    %pip install -q "excite[' in source(code[0])
    assert not any(line.lstrip().startswith(("%", "!")) for cell in code[1:] for line in source(cell).splitlines())
    # The second one is what the tests change, and every name that they set is there.
    assert code[1]["metadata"] == {"tags": ["parameters"]}
    targets = BUDGET[notebook.stem].partition("=")[0].replace(",", " ").split()
    assert set(targets) <= set(re.findall(r"^(\w+) =", source(code[1]), re.MULTILINE))
    text = notebook.read_text("utf-8")
    assert not re.search(r"/(home|root|tmp|Users)/", text)
    assert cells(notebook, "markdown")[0]["source"][0].startswith("# ")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_it_installs_the_extras_that_it_needs(notebook: Path) -> None:
    from excite.common.extras import EXTRAS

    text = "\n".join(source(cell) for cell in cells(notebook))
    extras = re.findall(r"excite\[([a-z,]+)\]", source(cells(notebook)[0]))[0].split(",")
    assert set(extras) <= set(EXTRAS)
    assert ("timm" in extras) == ("import timm" in text)
    assert ("train" in extras) == any(word in text for word in ("excite.fit", "excite.compare", "excite.explain"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_the_page_names_it(notebook: Path) -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text("utf-8")
    title = cells(notebook, "markdown")[0]["source"][0].removeprefix("# ").strip()
    assert f"| {title} | `notebooks/{notebook.name}` |" in page
    (extras,) = re.findall(r"excite\[[a-z,]+\]", source(cells(notebook)[0]))
    assert f"`{extras}`" in next(line for line in page.splitlines() if notebook.name in line)


def test_the_words_about_command_lines_are_taken() -> None:
    from excite.cli import COMMANDS
    from excite.cli.main import load
    from excite.cli.parsing import parse

    lines = [
        line
        for notebook in NOTEBOOKS
        for cell in cells(notebook, "markdown")
        for line in re.findall(r"`excite ([a-z][^`]*)`", source(cell))
    ]
    assert len(lines) >= 6
    for line in lines:
        name, *words = line.split()
        target = COMMANDS[name]
        assert isinstance(target, str)
        if words or name == "demo":
            assert parse(load(target), f"excite {name}", words) is not None, line


def test_the_method_has_fifteen_lines() -> None:
    """As the title says; imports and empty lines are not counted."""
    code = cells(ROOT / "notebooks" / "your_own_method.ipynb")
    (cell,) = [cell for cell in code if cell["metadata"].get("tags") == ["method"]]
    lines = [line for line in source(cell).splitlines() if line.strip() and not re.match("import|from", line)]
    assert len(lines) <= 15


def test_the_fast_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / "notebooks" / f"{FAST}.ipynb")
    out = capsys.readouterr().out
    assert "with the frog's weights" in out
    assert [network.label for network in names["networks"]] == ["se_resnet20", "eca_resnet20", "srm_resnet20"]
    assert names["stage"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("notebook", [n for n in NOTEBOOKS if n.stem != FAST], ids=lambda n: n.stem)
def test_it_runs(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(notebook)
    out = capsys.readouterr().out
    if notebook.stem == "attach_and_finetune":
        assert "the same outputs as before: True" in out
        assert "modules left: 0" in out
    elif notebook.stem == "fair_comparison":
        assert [row.name for row in names["results"].rows] == ["none", "eca"]
        assert (tmp_path / "compare" / "resnet20-digits" / "report.html").is_file()
    else:
        assert "weights" in out
