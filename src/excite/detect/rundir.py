"""The run directory of a detector: where it is, whether it may be used, what is written into it."""

import itertools
import os
import re
import shutil
from pathlib import Path

import yaml

from excite.detect.config import DetectConfig
from excite.errors import UsageError
from excite.train.config import write_text

SHARED = "EXCITE_DETECT_RUN"  # tells the processes that a distributed run starts which directory the first one took


def prepare(config: DetectConfig) -> Path:
    """Return the run directory, made and free (or that of the run to resume).

    Raises UsageError if it holds something and neither overwriting nor resuming was asked for.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and SHARED in os.environ:
        return Path(os.environ[SHARED])
    path = _resumed(config) if config.resume else _named(config) if config.out else _fresh(config)
    os.environ[SHARED] = str(path)
    return path


def _resumed(config: DetectConfig) -> Path:
    path = Path(str(config.resume))
    if not path.is_dir():
        raise UsageError(f"--resume {path}: no such run directory")
    return path


def _named(config: DetectConfig) -> Path:
    path = Path(str(config.out))
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
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _fresh(config: DetectConfig) -> Path:
    kind, _, place = config.data.partition(":")
    data = Path(place).name if kind in ("coco", "voc") else kind
    stem = re.sub(r"[^\w.]+", "-", f"{config.kind}-{Path(config.backbone).name}-{data}").strip("-")
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def write_config(path: Path, config: DetectConfig) -> None:
    """Write the resolved configuration; paths to this run itself are left out, so it can be used for another."""
    values = {k: v for k, v in config.to_dict().items() if k not in ("resume", "overwrite", "out")}
    header = "# every option of this run; `excite detect train --config THIS_FILE` repeats it\n"
    write_text(path / "config.yaml", header + yaml.safe_dump(values, sort_keys=False))


def last_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint to go on from, or None where no epoch was completed."""
    file = path / "checkpoints" / "last.ckpt"
    return file if file.is_file() else None
