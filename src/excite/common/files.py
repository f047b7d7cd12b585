"""Atomic writes: a reader never sees half a file."""

import os
import tempfile
from pathlib import Path

from excite.errors import ExciteError


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` under a temporary name, then move it there. Raises ExciteError where it cannot."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ExciteError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def write_text(path: str | Path, text: str) -> Path:
    """Write text (UTF-8) atomically."""
    return write_bytes(path, text.encode())
