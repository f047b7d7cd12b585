"""Numbers of README and docs come from result files: the check, and what it must notice."""

import ast
import importlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from excite.measure.tables_report import STATES

ROOT = Path(__file__).resolve().parents[2]
# What only a measurement gives: times, speeds, deviations, ratios with an interval.
MEASURED = re.compile(
    r"\d (ms|us|img/s|images/s)\b|\d ± \d|\d\.\d+x? [\[(][+-]?\d\.\d+(, |-)[+-]?\d\.\d+[\])]|\d\.\d % top-1"
)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


numbers, record = module("write_numbers"), module("record")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """README, docs and result files, to be broken."""
    for name in ("docs", "benchmarks"):
        (tmp_path / name).mkdir()
        for page in (ROOT / name).glob("*.md"):
            shutil.copy(page, tmp_path / name)
        shutil.copytree(ROOT / name / "results", tmp_path / name / "results", ignore=shutil.ignore_patterns("*.png"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_every_block_agrees_with_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert numbers.main(["--check"]) == 0, capsys.readouterr().err
    blocks = sum(len(numbers.BLOCK.findall(page.read_text())) for page in numbers.pages(ROOT))
    assert blocks > 50


def test_a_changed_digit_on_a_page_is_noticed_and_put_right(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = copy / "README.md"
    before = page.read_text()
    (row,) = re.findall(r"^\| eca \| \d+\.\d\d ± .*$", before, re.MULTILINE)
    wrong = row.replace(" ± ", "1 ± ")
    page.write_text(before.replace(row, wrong))
    assert numbers.main(["--check"], copy) == 1
    err = capsys.readouterr().err
    assert re.search(rf"README\.md:\d+: '{re.escape(wrong)}' should be '{re.escape(row)}'", err)
    assert numbers.main([], copy) == 0
    assert page.read_text() == before


def test_a_changed_digit_in_a_line_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = copy / "README.md"
    page.write_text(re.sub(r"(value=reproduced -->)\d+", r"\g<1>264", page.read_text()))
    assert numbers.main(["--check"], copy) == 1
    assert "'264' should be " in capsys.readouterr().err


def test_a_changed_digit_in_a_file_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "benchmarks" / "results" / "free.json"
    content = json.loads(file.read_text())
    found = content["tables"]["training step"]
    (row,) = (row for row in found["rows"] if row[0] == "resnet50: eca, ours")
    row[[column[0] for column in found["columns"]].index("NHWC")][0] += 0.001
    file.write_text(json.dumps(content))
    assert numbers.main(["--check"], copy) == 1
    err = capsys.readouterr().err
    assert {"README.md", "docs/free.md", "benchmarks/free.md"} <= set(re.findall(r"^(\S+?):\d+:", err, re.MULTILINE))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("<!-- numbers: nowhere table -->\n<!-- end -->", "no result file nowhere.json"),
        ("<!-- numbers: free tables -->\n<!-- end -->", "has no table 'tables'; it has training step"),
        ('<!-- numbers: free "training step" columns="NHW" -->\n<!-- end -->', "no column 'NHW'; there are network"),
        ('<!-- numbers: free "training step" rows="^vgg" -->\n<!-- end -->', "no row matches '^vgg'"),
        ('<!-- numbers: free "training step" cell=NHWC -->1<!-- end -->', "one is wanted"),
        ('<!-- numbers: free "training step" row="x" -->1<!-- end -->', "cannot read"),
        ("<!-- numbers: free -->\n<!-- end -->", "names no table"),
        ('<!-- numbers: free "training step" -->1<!-- end -->', "needs lines of its own"),
        ("<!-- numbers: tables value=all -->1<!-- end -->", "has no value 'all'"),
        ("<!-- numbers: free table -->", "a block without its end"),
        ("<!-- end -->", "an end without its block"),
    ],
)
def test_blocks_that_cannot_be_written(block: str, words: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "docs" / "wrong.md").write_text(f"# Title\n\n{block}\n")
    for arguments in (["--check"], []):
        assert numbers.main(arguments, copy) == 1
        err = capsys.readouterr().err
        assert "docs/wrong.md" in err
        assert words in err


def test_measured_numbers_stand_in_blocks() -> None:
    outside = []
    for page in numbers.pages(ROOT):
        if page.name in ("tables.md", "ablations.md", "attach.md", "explain.md"):
            continue  # a page of its own command; transcripts of single commands
        text = FENCE.sub("", numbers.BLOCK.sub("", page.read_text()))
        outside += [f"{page.name}: {line}" for line in text.splitlines() if MEASURED.search(line)]
    assert not outside
    assert MEASURED.search("it takes 12 ms")
    assert MEASURED.search("1.035 [1.002, 1.055]")
    assert MEASURED.search("61.00 ± 0.55 %")


def test_every_file_says_where_it_is_from() -> None:
    files = [f for folder in numbers.FOLDERS for f in sorted((ROOT / folder).glob("*.json"))]
    assert len(files) > 20
    for file in files:
        _, content = numbers.load(ROOT, file.stem)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", content["date"]), file
        assert content["command"], file
        assert content["machine"], file
        assert "versions" in content, file
        for name, table in content.get("tables", {}).items():
            assert all(len(row) == len(table["columns"]) for row in table["rows"]), (file, name)


def test_a_written_file_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x/script.py", "--rounds", "9"])
    table = record.table({"network": "", "ratio": record.RATIO}, [["eca", [1.5, 1.25, 2.0]], ["se", [1, 1, 1]]])
    path = record.write(tmp_path / "benchmarks" / "results" / "new.json", {"t": table}, interval="all of them")
    content = json.loads(path.read_text())
    assert content["command"] == "python benchmarks/script.py --rounds 9"
    assert content["tables"]["t"] == table
    assert content["versions"]["torch"]
    text = numbers.render(tmp_path, "new t", inline=False)
    assert "| eca | 1.500 [1.250, 2.000] |" in text
    assert "Brackets: all of them" in text
    assert numbers.render(tmp_path, 'new t range="ratio"', inline=True) == "1.000 to 1.500"
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        record.table({"a": "", "b": ""}, [["x"]])


SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_write_result_files_and_import_what_exists(script: Path) -> None:
    tree = ast.parse(script.read_text())
    imports = {(n.module, a.name) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    wrote = {("record", "write"), ("common", "save"), ("excite.common.files", "write_text")} & imports
    # The second compares two trees, the third writes weights, the last two are parts of others.
    assert wrote or script.name in (
        "write_numbers.py",
        "proof_of_value.py",
        "bundle_weights.py",
        "gpu_cells.py",
        "traffic.py",
    )
    for name, attribute in imports:
        if name and name.split(".")[0] == "excite" and not name.startswith("excite.export"):
            found = importlib.import_module(name)
            assert hasattr(found, attribute) or importlib.util.find_spec(f"{name}.{attribute}"), (name, attribute)


def test_the_readme_quotes_verdicts_that_exist() -> None:
    values = json.loads((ROOT / "docs" / "results" / "tables.json").read_text())["values"]
    assert set(values) == {*STATES[:4], "computed", "blind"}
