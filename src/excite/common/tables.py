"""What reaches the terminal: names made harmless, and one console for all tables, wide enough in a file or pipe."""

import csv
import io
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

FORMULAS = tuple("=+-@|%")  # how a cell starts that a spreadsheet may run
JOINERS = "\u200c\u200d"  # between the letters of some scripts, and in some emoji


def printable(text: object) -> str:
    """Return a name that somebody else chose, such as a class or a file, in one line that is safe to print.

    Control characters (a terminal obeys them), line ends, marks that turn the direction of writing, and what is no
    character at all are written as escapes, as \\x1b.
    """
    return "".join(c if _is_harmless(c) else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text))


def _is_harmless(character: str) -> bool:
    kind = unicodedata.category(character)
    return not (kind.startswith("C") or kind in ("Zl", "Zp")) or character in JOINERS


def text_width(most: int = 110) -> int:
    """Return how many columns running text may take: the terminal's, at least 30; `most` in a file or pipe."""
    return max(30, min(shutil.get_terminal_size((most, 24)).columns, most))


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, `1 image`, `2 images`, `2 classes`."""
    plural = noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{number} {noun if number == 1 else plural}"


def say(line: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print one line with whatever names are in it."""
    print(printable(line), file=file, flush=flush)


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV with a header; a key that a row lacks leaves its cell empty.

    Texts are made printable, and one that a spreadsheet would take for a formula gets a ' before it.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _csv_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in FORMULAS else text


def markdown_cell(text: str) -> str:
    """Return text that stands in a Markdown table as it is: no mark of it begins a cell or turns letters bold."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def markdown_row(cells: Sequence[str]) -> str:
    """Return the line of a Markdown table."""
    return "| " + " | ".join(map(markdown_cell, cells)) + " |"


def make_console() -> "Console":
    """Return a console on the standard output that has room for a table in a file or pipe.

    Square brackets are what they are, as in `eca@sites=[layer3]`, and no colours.
    """
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, markup=False)
    return Console(highlight=False, markup=False, width=200, file=sys.stdout)
