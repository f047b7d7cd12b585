"""The run directory: where it is, whether it may be used, what to go on from."""

import itertools
import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import yaml

from excite.common.files import write_text
from excite.errors import UsageError

SHARED = "EXCITE_RUN"  # tells the processes that a distributed run starts which directory the first one took
NOT_KEPT = ("out", "overwrite", "resume", "quiet")  # options about this very call, not about the run


class Config(Protocol):
    """What a run's configuration says about its directory."""

    out: str | None
    overwrite: bool
    resume: str | None

    @property
    def stem(self) -> str:
        """The name of a run that was given none."""

    def to_dict(self) -> dict[str, Any]:
        """Return all options."""


def prepare(config: Config) -> Path:
    """Return the run directory, made and empty (or that of the run to resume). Raises what `check_free` raises.

    A distributed run starts the command again for every further process: those get the directory of the first.
    """
    if is_follower():
        return Path(os.environ[SHARED])
    path = _prepare(config)
    os.environ[SHARED] = str(path)
    return path


def is_follower() -> bool:
    """Tell whether this process was started by the first one of a distributed run."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and SHARED in os.environ


def _prepare(config: Config) -> Path:
    check_free(config)
    if config.resume:
        return Path(config.resume)
    if config.out is None:
        return _fresh(config)
    path = Path(config.out)
    if config.overwrite and path.is_dir():
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_free(config: Config) -> None:
    """Raise UsageError if the run directory holds something and neither overwriting nor resuming was asked for."""
    if is_follower():
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


def _fresh(config: Config) -> Path:
    stem = re.sub(r"[^\w.]+", "-", config.stem).strip("-")
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def write_config(path: Path, config: Config, command: str) -> None:
    """Write the resolved configuration, fit to be read by --config of `command` or by --resume for this run."""
    values = {k: v for k, v in config.to_dict().items() if k not in NOT_KEPT}
    header = f"# every option of this run; `{command} --config THIS_FILE` repeats it\n"
    write_text(path / "config.yaml", header + yaml.safe_dump(values, sort_keys=False))


def last_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint to go on from, or None where no epoch was completed."""
    file = path / "checkpoints" / "last.ckpt"
    return file if file.is_file() else None
