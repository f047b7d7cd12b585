"""The run directory: where it is, whether it may be used, what to go on from."""

import itertools
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TextIO

import yaml

from excite.common.checks import LARGEST, shown
from excite.common.files import LOCK, locked, partial_files, write_text
from excite.engine.config import RunConfig
from excite.engine.launch import note_run, rank_of
from excite.errors import ExciteError, UsageError


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
        self.under_way = False  # the first step is next: a run that is resumed stands where it stood

    @property
    def path(self) -> Path:
        """The directory. Raises ExciteError where this process has not been told it yet."""
        if self._path is None:
            raise ExciteError("this process does not know its run directory yet; the first process tells it")
        return self._path

    @property
    def planned(self) -> Path:
        """Where a run will be: the directory, before it is there."""
        return self._path or next(path for path in _places(self.config) if self.config.out or not path.exists())

    def claim(self, command: str) -> None:
        """Make the directory and write config.yaml, for `--config` of `command`; other processes wait for `share`."""
        if not self.first:
            return
        check_free(self.config)
        if self._path is None:
            self._path = _make(self.config)
        remedy = "wait for its end or take another --out"
        self._lock = locked(self._path, f"another process is writing this run; {remedy}")
        try:
            if self.config.overwrite:
                _empty(self._path)
            for leftover in partial_files(self._path):  # of a process that was killed
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise ExciteError(f"cannot write {self._path}: {error.strerror or error}") from error
        note_run(str(self._path.absolute()))
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
    def step(self) -> Path:
        """The checkpoint inside the epoch under way, where `checkpoint_every` asks for one."""
        return self.path / "checkpoints" / "step.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch: the last one where no epoch was validated."""
        best = self.path / "checkpoints" / "best.ckpt"
        return best if best.is_file() else self.last

    @property
    def start(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run, or where none was written.

        Raises ExciteError where it is damaged.
        """
        return self._start[0]

    @property
    def epochs(self) -> int:
        """The epochs that the run had completed when it was resumed; 0 for a new one. Raises what `start` raises."""
        return self._start[1]

    @cached_property
    def _start(self) -> tuple[Path | None, int]:
        """The checkpoint to go on from, and the epochs completed: the one inside an epoch if `last` is not newer."""
        completed = self._epoch(self.last) + 1 if self.config.resume and self.last.is_file() else 0
        if self.config.resume and self.step.is_file() and self._epoch(self.step) >= completed:
            return self.step, self._epoch(self.step)
        return (self.last if completed else None), completed

    def _epoch(self, file: Path) -> int:
        """Return the number of the epoch, from 0, in or after which a checkpoint was written."""
        import torch

        try:
            with zipfile.ZipFile(file) as archive:  # torch does not look at the sums that it wrote
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"its part {damaged} is damaged")
            epoch = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["epoch"]
        except Exception as error:  # damaged bytes lead the unpickler anywhere
            raise self.broken(error, file) from error
        if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch < LARGEST:
            raise self.broken(ValueError(f"its epoch is {shown(epoch)}"), file)
        return epoch

    def broken(self, error: Exception, file: Path) -> ExciteError:
        """Return the error for a checkpoint that cannot be gone on from: what is wrong, and what can be done."""
        best = self.best
        remedy = (
            f"`cp {best} {self.last}` goes back to the best epoch" if best != self.last else "start with --overwrite"
        )
        if file == self.step:
            remedy = f"`rm {file}` goes back to the last whole epoch"
        reason = (str(error).strip().splitlines() or [""])[0]
        if "weights_only" in reason or not reason:  # torch's advice to read without protection is not passed on
            reason = "it is damaged, or holds more than tensors and plain values"
        return ExciteError(f"cannot go on from {file}: {type(error).__name__}: {reason}; {remedy}")


def is_first(config: RunConfig) -> bool:
    """Return whether this process is the first (or only) one of its run. Launchers say so before it is connected."""
    return rank_of(config) == 0


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
    """Return whether a directory holds more than a run that was killed before its first file was whole.

    Raises ExciteError where it cannot be looked into.
    """
    leftovers = {path / LOCK, *partial_files(path)}
    try:
        return any(entry not in leftovers for entry in path.iterdir())
    except OSError as error:
        raise ExciteError(f"cannot read {path}: {error.strerror or error}") from error


def _places(config: RunConfig) -> Iterator[Path]:
    """Yield where a run may be: the place it was given, else names with a number."""
    if config.out is not None:
        yield Path(config.out)
        return
    stem = re.sub(r"[^\w.]+", "-", config.stem).strip("-")
    yield Path("runs") / stem
    for number in itertools.count(2):
        yield Path("runs") / f"{stem}-{number}"


def _make(config: RunConfig) -> Path:
    for path in _places(config):
        try:
            path.mkdir(parents=True, exist_ok=config.out is not None)
        except (OSError, ValueError) as error:  # ValueError: a zero byte
            if config.out is not None or not isinstance(error, FileExistsError):
                raise ExciteError(f"cannot make {path}: {getattr(error, 'strerror', None) or error}") from error
        else:
            return path
    raise AssertionError("unreachable")


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
