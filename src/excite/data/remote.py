"""Shards that are elsewhere: http(s)://, s3:// and the like through fsspec, and commands (`pipe:`).

Each is fetched once, whole, into the cache, so that it is read like a file on disk: shuffled over all shards, and the
same again when a run goes on.
"""

import contextlib
import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from excite.common.extras import MissingLibraryError, require
from excite.common.files import replacing, safe_name
from excite.errors import ExciteError, UsageError
from excite.runtime import cache_folder

PIPE = "pipe:"
AT_ONCE = 4  # shards that are fetched side by side


def is_remote(place: str) -> bool:
    """Return whether a pattern names something that is no file of this machine."""
    return place.startswith(PIPE) or re.match(r"[a-z][a-z0-9+.-]*://", place) is not None


def fetch(places: Sequence[str], beside: Sequence[str] = ()) -> list[Path]:
    """Return the files that places (URLs, or `pipe:COMMAND`) were fetched to; what is there is not fetched again.

    beside: names of files that may stand beside them, and are fetched too where they do.
    Raises UsageError where a library is missing, ExciteError where something cannot be fetched.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        files = list(pool.map(_fetched, places))
    for name in beside:
        with contextlib.suppress(ExciteError):
            if not places[0].startswith(PIPE):
                _fetched(f"{places[0].rpartition('/')[0]}/{name}")
    return files


def _fetched(place: str) -> Path:
    command = place.startswith(PIPE)
    folder = place if command else place.rpartition("/")[0]
    mark = hashlib.sha256(folder.encode(errors="replace")).hexdigest()[:16]
    name = safe_name(re.split(r"[\s/|;]", place.split("?", maxsplit=1)[0].rstrip())[-1] or "shard")
    file = cache_folder() / "shards" / mark / (name if not command or name.endswith(".tar") else f"{name}.tar")
    if file.is_file():
        return file
    with replacing(file) as temporary:
        _run(place.removeprefix(PIPE), temporary) if command else _download(place, temporary)
    return file


def _run(command: str, target: Path) -> None:
    with target.open("wb") as output:
        done = subprocess.run(command, shell=True, stdout=output, stderr=subprocess.PIPE, check=False)  # as asked for
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise ExciteError(f"pipe:{command} ended with {done.returncode}: {last}")


def _download(url: str, target: Path) -> None:
    try:
        require("fsspec")
        import fsspec

        with fsspec.open(url, "rb") as source, target.open("wb") as output:
            shutil.copyfileobj(source, output, 2**20)
    except MissingLibraryError:
        raise
    except (ImportError, ValueError) as error:  # fsspec names the library that a protocol needs, or knows none
        raise UsageError(f"cannot fetch {url}: {str(error).splitlines()[0]}") from None
    except Exception as error:  # of the many libraries behind it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExciteError(f"cannot fetch {url}: {reason}") from None
