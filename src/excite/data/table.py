"""`csv:FILE`: a table with the path and the label of each image, and perhaps its split."""

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from excite.data.folder import SPLITS, SUFFIXES, FolderImages
from excite.data.labels import read_table
from excite.data.sizes import usual_for
from excite.data.splits import Source, SplitName
from excite.errors import ExciteError, UsageError

PATHS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "image_name",
    "img",
    "img_path",
    "photo",
    "picture",
    "name",
    "id",
    "image_id",
)
LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target", "y", "species")
PARTS = ("split", "set", "subset", "partition", "fold")
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".tif", ".JPG", ".JPEG", ".PNG")  # that may be missing in the table
WORDS = {word: split for split, words in SPLITS.items() for word in (*words, *(("dev",) if split == "val" else ()))}


def open_table(spec: str) -> Source:
    """Open a table with a column of paths, one of labels (words or numbers) and perhaps one of splits.

    Columns are known by their header (path, label, split and the like), that of the paths also by its images and that
    of the labels as the only other one; without a header they stand in this order. Paths start at the table's folder,
    or at one of the folders in it; a suffix may be missing, and folders of another machine before them are left out.
    Classes are the values of the labels, sorted. Raises UsageError for a missing file or column, ExciteError for rows
    that cannot be used.
    """
    file = Path(spec.partition(":")[2]).expanduser()
    if not file.is_file():
        raise UsageError(f"{spec}: no file {file}" + (", it is a folder" if file.is_dir() else ""))
    rows = [row for row in read_table(file) if any(row)]
    (path, label, split), header = columns(spec, rows)
    rows = rows[1:] if header else rows
    last = max(path, label, -1 if split is None else split)
    short = next((number for number, row in enumerate(rows, 1) if len(row) <= last), None)
    if short is not None:
        raise ExciteError(f"{file}: row {short} has {len(rows[short - 1])} cells, too few for its columns")
    if not rows:
        raise ExciteError(f"{file} holds no rows")
    notes: list[str] = []
    files = _locate(file, [row[path] for row in rows], notes)
    words = [row[label] for row in rows]
    unlabelled = sum(not word for word in words)
    if unlabelled:
        notes.append(f"passed over {unlabelled} rows without a label")
    classes = sort_classes(words)
    number = {name: i for i, name in enumerate(classes)}
    members: dict[SplitName, list[int]] = {}
    for i, row in enumerate(rows):
        if words[i]:
            members.setdefault(_split_of(file, "train" if split is None else row[split]), []).append(i)
    if "train" not in members:
        raise ExciteError(f"{file}: no row is of the split train, only of {', '.join(members)}")
    splits: dict[SplitName, FolderImages] = {
        name: FolderImages([files[i] for i in part], [number[words[i]] for i in part]) for name, part in members.items()
    }
    return Source(splits, classes, usual_for, notes)


def columns(spec: str, rows: Sequence[Sequence[str]]) -> tuple[tuple[int, int, int | None], bool]:
    """Return which columns hold path, label and split (None: there is none), and whether there is a header.

    Raises UsageError where they cannot be told.
    """
    first = rows[0] if rows else []
    if len(first) >= 2 and _is_image(first[0]):  # no header, the first row is an image
        return (0, 1, 2 if len(first) > 2 and first[2].lower() in WORDS else None), False
    names = [re.sub(r"[\s-]+", "_", cell.lower()) for cell in first]
    path, label, split = (next((names.index(w) for w in words if w in names), None) for words in (PATHS, LABELS, PARTS))
    if path is None and len(rows) > 1:
        path = next((i for i, cell in enumerate(rows[1][: len(names)]) if i != label and _is_image(cell)), None)
    others = [i for i in range(len(names)) if i not in (path, split)]
    if label is None and path is not None and len(others) == 1:
        label = others[0]
    if path is not None and label is not None:
        return (path, label, split), True
    lacks = "path" if path is None else "label"
    raise UsageError(
        f"{spec}: no column {lacks} among {', '.join(first) or 'none'}; expected a header such as path,label,split"
    )


def _is_image(cell: str) -> bool:
    return PureWindowsPath(cell).suffix.lower() in SUFFIXES


def sort_classes(words: Sequence[str]) -> list[str]:
    """Return the distinct labels, numbers by their value and words by the alphabet."""
    distinct = {word for word in words if word}
    if all(word.isdecimal() for word in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def _split_of(file: Path, word: str) -> SplitName:
    if word.lower() not in WORDS:
        raise ExciteError(f"{file}: {word!r} is no split; expected {', '.join(WORDS)}")
    return WORDS[word.lower()]


def _locate(table: Path, names: Sequence[str], notes: list[str]) -> list[Path]:
    """Return the files, below the folder where the first one that exists is. Raises ExciteError where none exists.

    Tried in turn: the names as they are, with slashes for backslashes, and without more and more of the folders before
    them, which are another machine's.
    """
    folders = [table.parent, *sorted(p for p in table.parent.iterdir() if p.is_dir() and not p.name.startswith("."))]
    tries = [(folder, suffix) for folder in folders for suffix in ENDINGS]
    for shorten in (None, *range(max(len(_parts(name)) for name in names[:20]))):
        shortened = [name if shorten is None else _without(name, shorten) for name in names]
        found = next(((f, s) for name in shortened[:20] for f, s in tries if (f / f"{name}{s}").is_file()), None)
        if found is None or len(set(shortened)) < len(set(names)):
            continue
        folder, suffix = found
        if shorten:
            notes.append(f"took {names[0]} as {shortened[0]} in {folder}")
        files = [folder / f"{name}{suffix}" for name in shortened]
        missing = [file for file in files if not file.is_file()]
        if missing:
            notes.append(f"{len(missing)} of {len(files)} files are missing, such as {missing[0]}")
        return files
    raise ExciteError(
        f"{table}: its images are not there, such as {table.parent / names[0]}; paths start at {table.parent}"
    )


def _parts(name: str) -> tuple[str, ...]:
    path = PureWindowsPath(name)
    return path.relative_to(path.anchor).parts


def _without(name: str, count: int) -> str:
    """Return a path with slashes, without drive and root, and without its first folders, that many."""
    parts = _parts(name)
    return "/".join(parts[min(count, len(parts) - 1) :])
