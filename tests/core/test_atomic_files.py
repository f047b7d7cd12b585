"""Files that are written whole or not at all, and names that stay in their folder."""

import json
import math
import os
from pathlib import Path

import pytest

from excite.common.files import replacing, safe_name, write_json, write_text
from excite.errors import ExciteError


def test_written_under_a_temporary_name_then_moved(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    write_text(target, "old")
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["x.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write_json(tmp_path / "x.json", [1])

    def interrupted() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert target.read_text() == "[\n  1\n]\n"
    assert os.listdir(tmp_path) == ["x.json"]


def test_the_content_is_on_the_disk_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (calls.append("fsync"), fsync(f))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "x", "y")
    assert calls == ["fsync", "replace"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExciteError, match="cannot write"):
        write_text(tmp_path / "file" / "x", "y")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExciteError, match="cannot write"):
        write_text(tmp_path / "folder", "y")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("seven", "seven"),
        (7, "7"),
        ("T-shirt.v2", "T-shirt.v2"),
        ("hot dog", "hot_dog"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/absolute", "_absolute"),
        ("a\\b", "a_b"),
        ("", "_"),
        ("..", "_"),
        (".hidden", "hidden"),
        ("-rf", "_-rf"),
        ("a\0b\nc", "a_b_c"),
        ("Katze Ä", "Katze_Ä"),
        ("CON", "_CON"),
        ("x" * 500, "x" * 120),
        ("ä" * 500, "ä" * 60),
    ],
)
def test_safe_names(text: object, name: str, tmp_path: Path) -> None:
    assert safe_name(text) == name
    path = tmp_path / safe_name(text)
    write_text(path, "x")
    assert os.listdir(tmp_path) == [path.name]


def test_names_that_meet_are_told_apart() -> None:
    taken: set[str] = set()
    assert [safe_name(text, taken) for text in ("a b", "a/b", "A_B", "c")] == ["a_b", "a_b-2", "A_B-3", "c"]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_json_files_hold_json(odd: float, tmp_path: Path) -> None:
    """Not the NaN of Python, which other readers refuse."""
    file = write_json(tmp_path / "a.json", {"one": odd, "many": [1.5, (odd, {"deep": odd})], "text": "NaN"})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    content = json.loads(file.read_text(), parse_constant=refuse)
    assert content == {"one": None, "many": [1.5, [None, {"deep": None}]], "text": "NaN"}
