"""What is printed fits the terminal: narrow, without colours, one of a thing."""

import re

import pytest
from rich.table import Table

from excite.cli import COMMANDS
from excite.cli.main import main
from excite.common.tables import counted, make_console

PATHS = [
    path.split()
    for name, target in COMMANDS.items()
    for path in ([f"{name} {sub}" for sub in target] if isinstance(target, dict) else [name])
]


@pytest.mark.parametrize("columns", [40, 64, 100])
@pytest.mark.parametrize("path", [[], ["detect"], *PATHS], ids=" ".join)
def test_help_fits(
    path: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*path, "--help"]) == 0
    text = capsys.readouterr().out.partition("\nexamples:")[0]  # these are to be copied in one piece
    for line in text.splitlines():
        spelling = re.match(r"  (-|[A-Z]{2})|usage: |`", line)  # names of options are not broken
        assert len(line) <= columns or spelling or path == [], line
    assert re.search(r"^ {6}\S", text, re.MULTILINE) or columns > 64


def test_a_card_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["show", "srm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 for line in lines[1:-1])


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    make_console().print("x", style="red")
    assert capsys.readouterr().out == "x\n"


def test_brackets_are_no_colours(capsys: pytest.CaptureFixture) -> None:
    table = Table("[model]", title="[a] table")
    table.add_row("eca@sites=[layer3]")
    make_console().print(table)
    make_console().print("[red]x[/red]")
    out = capsys.readouterr().out
    for words in ("[model]", "[a] table", "eca@sites=[layer3]", "[red]x[/red]"):
        assert words in out


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(0, "image", "0 images"), (1, "image", "1 image"), (2, "class", "2 classes"), (1, "class", "1 class")],
)
def test_one_and_many(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words
