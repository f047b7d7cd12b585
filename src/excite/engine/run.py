"""The run directory: where it is, whether it may be used, what to go on from."""

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from excite.common.files import write_text
from excite.engine.config import RunConfig
from excite.errors import ExciteError, UsageError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # where launchers say which process this is, the surest first


class RunDirectory:
    """The directory that all processes of a run share: the first one chooses and makes it, `share` tells the others.

    `claim` raises what `check_free` raises.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.first = is_first(config)
        self._path: Path | None = Path(config.resume) if config.resume else None

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
        header = f"# every option of this run; `{command} --config THIS_FILE` repeats it\n"
        write_text(self._path / "config.yaml", header + yaml.safe_dump(self.config.recorded(), sort_keys=False))

    def share(self, broadcast: Callable[[str | None], str | None]) -> None:
        """Take over the first process's directory; called once all processes of the run are connected."""
        told = broadcast(None if self._path is None else str(self._path))
        if told is not None:
            self._path = Path(told)

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
    if path.is_dir() and any(path.iterdir()):
        if not config.overwrite:
            raise UsageError(
                f"output directory {path} exists and is not empty; take another --out, go on with --resume {path}, "
                "or replace it with --overwrite"
            )
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{path} does not look like a run directory (no config.yaml), so it is not overwritten")


def _make(config: RunConfig) -> Path:
    if config.out is not None:
        path = Path(config.out)
        if config.overwrite and path.is_dir():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        return path
    stem = re.sub(r"[^\w.]+", "-", config.stem).strip("-")
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")
