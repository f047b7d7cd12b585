"""Atomic writes: a reader never sees half a file, whatever writes it."""

import contextlib
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from excite.errors import ExciteError, UsageError

LOCK = ".lock"  # in a folder that one process at a time may write
LONGEST_NAME = 120  # bytes; file systems take 255, endings and temporary names need some
PARTIAL = ".partial"  # in temporary names, after random digits
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}  # of Windows


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its ending, to be written; then move it there.

    What was written is on the disk before it gets its name. After an error inside nothing is left. Folders are made.
    Raises ExciteError where it cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}{PARTIAL}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ExciteError(f"cannot write {target}: {error.strerror or error}") from error


def check_writable(path: str | Path, *, folder: bool = False) -> None:
    """Raise UsageError or ExciteError where a file (or a folder's files) could not be written; nothing is left behind.

    To be asked before long work, not after it.
    """
    target = Path(path)
    try:
        if target.exists() and target.is_dir() != folder:
            raise UsageError(f"{target} is a {'file' if folder else 'folder'}; give the name of a {_KINDS[folder]}")
        place = next(p for p in ((target if folder else target.parent), *target.parents) if p.exists())
        if not place.is_dir():
            raise UsageError(f"cannot write {target}: {place} is a file")
        if "\0" in str(target):
            raise UsageError(f"cannot write {target}: no name holds a zero byte")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        raise ExciteError(f"cannot write {target}: {error.strerror or error}") from None


def check_file(path: Path) -> None:
    """Raise ExciteError for what is there and no file: a folder, a pipe without a writer, a device without an end."""
    if path.exists() and not path.is_file():
        raise ExciteError(f"cannot read {path}: it is no file")


_KINDS = {False: "file", True: "folder"}


def locked(path: Path, busy: str) -> TextIO | None:
    """Return the open lock of a folder that one process at a time may write; None on systems without locks.

    It ends with its process, however that ends. busy: what to say while another process holds it, which raises
    UsageError. Raises ExciteError where nothing can be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        file = (path / LOCK).open("w")
    except OSError as error:
        raise ExciteError(f"cannot write {path}: {error.strerror}") from error
    try:
        # Of this process alone: reading processes do not inherit it, and it ends with the process.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise UsageError(f"{path}: {busy}") from None
    except OSError:
        file.close()
        return None
    return file


def partial_files(folder: Path) -> list[Path]:
    """Return what writers that were killed left in a folder and those below it."""
    named = re.compile(rf"\.[0-9a-f]{{8}}{re.escape(PARTIAL)}(\.\w+)?")
    return [path for path in folder.rglob(f".*{PARTIAL}*") if named.fullmatch(path.name)]


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` atomically. Raises ExciteError where it cannot."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write text (UTF-8) atomically; what is no character (of a file's name that is no text) becomes an escape."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: str | Path, content: Any, indent: int | None = 2) -> Path:  # whatever json takes
    """Write JSON atomically; NaN and infinity, which JSON does not have, become null."""
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content), indent=indent, allow_nan=False)
    return write_text(path, text + "\n")


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def safe_name(text: object, taken: set[str] | None = None) -> str:
    """Return a file name (without ending) for an id, a class or a path that somebody else chose.

    Letters, digits, `_`, `-` and inner dots stay, all else becomes `_`; so no name leaves its folder, is hidden, or is
    too long. taken: names in use, told apart by a number and added to.
    """
    name = re.sub(r"[^\w.-]", "_", str(text)).strip(".").encode()[:LONGEST_NAME].decode(errors="ignore")
    if not name or name.startswith("-") or name.split(".")[0].casefold() in RESERVED:
        name = f"_{name}"
    if taken is None:
        return name
    free, number = name, 2
    while free.casefold() in taken:  # some file systems do not tell capitals apart
        free, number = f"{name}-{number}", number + 1
    taken.add(free.casefold())
    return free
