"""What an annotation or results file may hold: the one place where its values are read and checked."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # of JSON that somebody else wrote

from excite.common.checks import shown
from excite.errors import ExciteError, near

# Any: entries of a file of annotations, which are checked as they are read.

LARGEST_SIDE = 65_535  # pixels: what JPEG files can be
MOST_PIXELS = 2**28
LONGEST_NAME = 1000
Id = int | str


class Fields:
    """The values of one entry; each method raises ExciteError that says where the entry is and what is wrong.

    where: the file and the entry, as messages call it.
    """

    def __init__(self, entry: Mapping[str, Any], where: str) -> None:
        self.entry, self.where = entry, where

    def value(self, key: str) -> Any:
        """Return a value that must be there."""
        if key not in self.entry:
            close = near(key, self.entry)
            raise ExciteError(f"{self.where} has no {key!r}{f' (but {close[0]!r})' if close else ''}")
        return self.entry[key]

    def wrong(self, key: str, expected: str) -> ExciteError:
        """Return the error for a value."""
        return ExciteError(f"{self.where} has {key} {shown(self.entry.get(key))}; expected {expected}")

    def id(self, key: str) -> Id:
        """Return an id: a whole number or a text."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | str) or not _usual(value):
            raise self.wrong(key, "a whole number or a text")
        return value

    def text(self, key: str) -> str:
        """Return a text of 1 to 1000 characters."""
        value = self.value(key)
        if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_NAME:
            raise self.wrong(key, f"a text of 1 to {LONGEST_NAME} characters")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self.entry.get(key, default) if default is not None else self.value(key)
        if not is_number(value) or not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def box(self, key: str, *, finite: bool) -> tuple[float, float, float, float]:
        """Return x, y, width, height in pixels."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
            raise self.wrong(key, "[x, y, width, height]")
        if finite and not all(map(math.isfinite, value)):
            raise self.wrong(key, "four finite numbers")
        return (value[0], value[1], value[2], value[3])

    def size(self) -> tuple[int, int]:
        """Return the width and height of an image in pixels."""
        width, height = (self._side(key) for key in ("width", "height"))
        if width * height > MOST_PIXELS:
            raise self.wrong("width", f"an image of at most {MOST_PIXELS} pixels, not {width}x{height}")
        return width, height

    def _side(self, key: str) -> int:
        value = self.value(key)
        if not is_number(value) or not 1 <= value <= LARGEST_SIDE or value != int(value):
            raise self.wrong(key, f"a whole number from 1 to {LARGEST_SIDE}")
        return int(value)

    def file(self, key: str, folder: Path) -> Path:
        """Return the path of a file below `folder`; slashes may be those of Windows."""
        name = self.text(key).replace("\\", "/")
        if not is_inside(name):
            raise self.wrong(key, f"the name of a file in {folder}")
        return folder / name


def is_number(value: object) -> bool:
    """True for whole numbers of usual size and for floats, nan and infinity among them."""
    return isinstance(value, int | float) and not isinstance(value, bool) and _usual(value)


def is_inside(name: str) -> bool:
    """True for a relative path that stays below its folder."""
    path = Path(name)
    return "\0" not in name and not path.is_absolute() and ".." not in path.parts and path.name != ""


def _usual(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, str) or len(value) <= LONGEST_NAME
