"""The run directory: where it is, whether it may be used, what to go on from."""

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import yaml

from excite.common.files import partial_files, write_text
from excite.engine.config import RunConfig
from excite.errors import ExciteError, UsageError

LOCK = ".lock"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # where launchers say which process this is, the surest first


class RunDirectory:
    """The directory that all processes of a run share: the first one chooses and makes it, `share` tells the others.

    `claim` raises what `check_free` and `locked` raise. `release` lets others write there; the end of the process does
    so too, however it ends.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.first = is_first(config)
        self._path: Path | None = Path(config.resume) if config.resume else None
        self._lock: TextIO | None = None

    @property
    def path(self) -> Path:
        """The directory. Raises ExciteError where this process has not been told it yet."""
        if self._path is None:
            raise ExciteError("this process does not know its run directory yet; the first process tells it")
        return self._path

    def claim(self, command: str) -> None:
        """Make the directory and write config.yaml, for `--config` of `command`; other processes wait for `share`."""
        if not self.first:
            return
        check_free(self.config)
        if self._path is None:
            self._path = _make(self.config)
        self._lock = locked(self._path)
        if self.config.overwrite:
            _empty(self._path)
        for leftover in partial_files(self._path):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        header = f"# every option of this run; `{command} --config THIS_FILE` repeats it\n"
        write_text(self._path / "config.yaml", header + yaml.safe_dump(self.config.recorded(), sort_keys=False))

    def release(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.close()

    def share(self, broadcast: Callable[[str | None], str | None]) -> None:
        """Take over the first process's directory; called once all processes of the run are connected."""
        path = broadcast(None if self._path is None else str(self._path))
        if path is not None:
            self._path = Path(path)

    @property
    def last(self) -> Path:
        """The checkpoint after the last epoch."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch: the last one where no epoch was validated."""
        best = self.path / "checkpoints" / "best.ckpt"
        return best if best.is_file() else self.last

    @property
    def start(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run, or where no epoch was completed."""
        return self.last if self.config.resume and self.last.is_file() else None

    @property
    def epochs(self) -> int:
        """The epochs that the run had completed when it was resumed; 0 for a new one."""
        if self.start is None:
            return 0
        import torch

        epoch: int = torch.load(self.start, map_location="cpu", weights_only=True, mmap=True)["epoch"]
        return epoch + 1


def is_first(config: RunConfig) -> bool:
    """Return whether this process is the first (or only) one of its run. Launchers say so before it is connected."""
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    return config.devices == 1 or rank == "0"


def check_free(config: RunConfig) -> None:
    """Raise UsageError if the run directory holds something and neither overwriting nor resuming was asked for."""
    if not is_first(config):
        return
    if config.resume and not Path(config.resume).is_dir():
        raise UsageError(f"--resume {config.resume}: no such run directory")
    if config.resume or config.out is None:
        return
    path = Path(config.out)
    if path.exists() and not path.is_dir():
        raise UsageError(f"output directory {path} is a file")
    if path.is_dir() and _holds_something(path):
        if not config.overwrite:
            raise UsageError(
                f"output directory {path} exists and is not empty; take another --out, go on with --resume {path}, "
                "or replace it with --overwrite"
            )
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{path} does not look like a run directory (no config.yaml), so it is not overwritten")


def _holds_something(path: Path) -> bool:
    """Return whether a directory holds more than a run that was killed before its first file was whole."""
    leftovers = {path / LOCK, *partial_files(path)}
    return any(entry not in leftovers for entry in path.iterdir())


def locked(path: Path) -> TextIO | None:
    """Return the open lock of a run directory; None on systems and file systems without locks.

    Raises UsageError while another process writes there, ExciteError where nothing can be written.
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
        remedy = "wait for its end or take another --out"
        raise UsageError(f"{path}: another process is writing this run; {remedy}") from None
    except OSError:
        file.close()
        return None
    return file


def _make(config: RunConfig) -> Path:
    stem = re.sub(r"[^\w.]+", "-", config.stem).strip("-")
    path = Path(config.out) if config.out is not None else Path("runs") / stem
    for number in itertools.count(2):
        try:
            path.mkdir(parents=True, exist_ok=config.out is not None)
        except OSError as error:
            if config.out is not None or not isinstance(error, FileExistsError):
                raise ExciteError(f"cannot make {path}: {error.strerror}") from error
            path = Path("runs") / f"{stem}-{number}"
        else:
            return path
    raise AssertionError("unreachable")


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
