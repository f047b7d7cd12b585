"""What reaches the terminal: names made harmless, and one console for all tables, wide enough in a file or pipe."""

import sys
import unicodedata
from typing import TextIO

from rich.console import Console
from rich.markup import escape

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


def cell(text: object) -> str:
    """Return a name for a cell of a table, where square brackets would be read as colours."""
    return escape(printable(text))


def say(line: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print one line with whatever names are in it."""
    print(printable(line), file=file, flush=flush)


def make_console() -> Console:
    """Return a console on the standard output that never cuts a table short in a file or pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=200, file=sys.stdout)
