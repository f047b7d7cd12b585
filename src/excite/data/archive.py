"""Zip files of images, unpacked once."""

import contextlib
import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from excite.data.folder import is_junk
from excite.errors import ExciteError
from excite.runtime import cache_folder


def unpack(file: Path) -> Path:
    """Return the folder that a zip file was unpacked to, in the cache; files with another content have another.

    Entries that only archives and systems leave are passed over. Raises ExciteError for a damaged file, one that needs
    a password, and where the disk is too small.
    """
    status = file.stat()
    mark = hashlib.sha256(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "unpacked" / f"{file.stem}-{mark}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            entries = [e for e in archive.infolist() if not any(is_junk(Path(part)) for part in Path(e.filename).parts)]
            size, free = sum(e.file_size for e in entries), shutil.disk_usage(folder.parent).free
            if size > free:
                raise ExciteError(
                    f"{file} unpacks to {size:,} bytes, {folder.parent} has {free:,} left; unpack it elsewhere"
                )
            archive.extractall(Path(temporary) / "x", entries)  # names that lead outside are made harmless there
            with contextlib.suppress(OSError):  # another process was faster
                (Path(temporary) / "x").rename(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise ExciteError(f"cannot unpack {file}: {error}") from None
    return folder
