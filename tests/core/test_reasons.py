"""Where the types end there is a reason: on the line, or once for the file in a comment that names it."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "excite"
FILES = sorted(SOURCE.rglob("*.py"))


def unexplained(text: str) -> list[str]:
    """The lines of a file that say Any without a comment, where none of its comments gives a reason for all."""
    lines = [line for line in text.splitlines() if re.search(r"\bAny\b", line)]
    code = [line for line in lines if not re.match(r"\s*(from|import|#)", line)]
    if re.search(r"(^|\s)# .*\bAny\b|\"\"\"[^\n]*hence Any\.\"\"\"", text, re.MULTILINE):
        return []
    return [line.strip() for line in code if "#" not in line]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_any_has_a_reason(file: Path) -> None:
    assert not unexplained(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_ignored_types_have_a_reason(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    ignored = [i for i, line in enumerate(text.splitlines()) if re.search(r"\S.*# type: ignore", line)]
    lines = ["", "", *text.splitlines()]
    for i in ignored:
        # In words behind it, in a comment of the two lines above, or once for the file.
        near = re.search(r"type: ignore\[[^]]*\]\s+#", lines[i + 2]) or any("# " in x for x in lines[i : i + 2])
        assert near or re.search(r"^# .*`type: ignore`", text, re.MULTILINE), lines[i + 2]


def test_what_has_none_is_seen() -> None:
    assert unexplained("from typing import Any\nx: Any = 1\n") == ["x: Any = 1"]
    assert unexplained("from typing import Any\nx: Any = 1  # as the library has it\n") == []
    assert unexplained("from typing import Any\n# Any: as the library has it.\nx: Any = 1\n") == []
