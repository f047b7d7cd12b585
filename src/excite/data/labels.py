"""Files that say the labels of images which lie flat in a folder."""

import codecs
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from excite.errors import ExciteError

LARGEST = 2**28  # bytes of a file that lists images
TABLES = (".txt", ".csv", ".tsv")


class Labels(NamedTuple):
    """The labels of some files, and where they are from."""

    file: Path
    labels: list[int]


def read_table(file: Path) -> list[list[str]]:
    """Return the rows of a text file: cells between tabs, commas, semicolons or blanks, the first of them that occurs.

    Text is UTF-8, or UTF-16 with its mark, as spreadsheets write it; so is a first line `sep=;`.
    Raises ExciteError for a file that is no text.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise ExciteError(f"{file} is too large for a list of images")
        content = file.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise ExciteError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ExciteError(f"cannot read {file}: it is not UTF-8 text; save it as 'CSV UTF-8'") from None
    lines = [line for line in text.splitlines() if line.strip()]
    marks = "\t,;"
    if lines and re.fullmatch(r"sep=.", lines[0].strip('" ')):
        marks = lines.pop(0).strip('" ')[-1]
    head = lines[0] if lines else ""
    mark = next((m for m in marks if m in head), None)
    try:
        rows = list(csv.reader(lines, delimiter=mark)) if mark else [line.split() for line in lines]
    except csv.Error as error:
        raise ExciteError(f"cannot read {file}: {error}") from None
    return [[cell.strip() for cell in row] for row in rows]


def find_labels(folder: Path, files: Sequence[Path], classes: Mapping[str, int]) -> Labels | None:
    """Return the labels of `files` from a list in or beside their folder; None where there is none.

    A list has a row per image: its name (with or without suffix), then its class by name or by number from 0, then
    anything: `val_annotations.txt` of Tiny-ImageNet, `LOC_val_solution.csv` and `val.txt` of ImageNet.
    Raises ExciteError for a list that lacks some images or has other classes.
    """
    if not files:
        return None
    name = folder.name
    places = [*sorted(folder.iterdir()), *sorted(p for p in folder.parent.iterdir() if name.lower() in p.name.lower())]
    for file in places:
        if file.suffix.lower() not in TABLES or not file.is_file() or file.name.startswith("."):
            continue
        listed = {
            row[0].replace("\\", "/").rpartition("/")[2]: row[1] for row in read_table(file) if len(row) > 1 and row[1]
        }
        cells = [listed.get(path.name, listed.get(path.stem)) for path in files]
        missing = [path for path, cell in zip(files, cells, strict=True) if cell is None]
        if len(missing) == len(files):
            continue
        if missing:
            raise ExciteError(f"{file} has no row for {len(missing)} of {len(files)} images, such as {missing[0].name}")
        return Labels(file, [_label(file, cell or "", classes) for cell in cells])
    return None


def _label(file: Path, cell: str, classes: Mapping[str, int]) -> int:
    word = cell.split(maxsplit=1)[0]  # boxes may follow
    if word in classes:
        return classes[word]
    if cell in classes:
        return classes[cell]
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    raise ExciteError(f"{file}: class {cell!r} is not among the {len(classes)} of the training images")
