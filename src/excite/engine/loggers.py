"""Where a run's numbers go beside metrics.csv: TensorBoard's files, or a tracker, through Lightning's loggers."""

import json
import os
import secrets
from collections.abc import Iterable

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from excite.common.extras import require
from excite.common.files import write_json
from excite.engine.run import RunDirectory
from excite.errors import ExciteError

PROJECT = "excite"  # what trackers file the runs under
REMEMBERED = "logger.json"  # holds the tracker's name of the run, so that a resumed run goes on there


def make_logger(directory: RunDirectory) -> Logger | None:
    """Return the logger that a run's configuration names; None for `none`, and in all but the first process.

    Raises MissingLibraryError where its library is not installed, ExciteError where it cannot start.
    """
    kind = directory.config.logger
    if kind == "none" or not directory.first:
        return None
    if kind == "tensorboard":
        return TensorBoardLogger(directory.path, name="", version="tensorboard")
    require(kind)
    try:
        known = _remembered(directory, kind)
        logger = _wandb(directory, known) if kind == "wandb" else _mlflow(directory, known)
        if not known:  # a tracker may refuse other values of a run that it knows, as of more epochs
            logger.log_hyperparams(directory.config.recorded())
    except Exception as error:  # of the tracker: no account, no server, a run that was deleted there
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "`wandb login`, or WANDB_MODE=offline" if kind == "wandb" else "look at MLFLOW_TRACKING_URI"
        raise ExciteError(f"--logger {kind} cannot start: {reason}; {remedy}") from error
    return logger


def finish(loggers: Iterable[Logger]) -> None:
    """End what a tracker holds open in this process: the next run would be written into it."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":  # named, not imported: the class needs its library
            getattr(logger, "experiment").finish()  # noqa: B009  (Lightning's base class does not declare it)


def _wandb(directory: RunDirectory, known: str | None) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    number = known or secrets.token_hex(4)
    logger = WandbLogger(
        project=PROJECT, name=directory.path.name, id=number, resume="allow", save_dir=str(directory.path)
    )
    _ = logger.experiment  # starts it: what fails should fail before the training
    if not known:
        write_json(directory.path / REMEMBERED, {"wandb": number})
    return logger


def _mlflow(directory: RunDirectory, known: str | None) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(directory.path / 'mlflow.db').absolute()}"
    logger = MLFlowLogger(PROJECT, run_name=directory.path.name, tracking_uri=place, run_id=known)
    if not known:
        write_json(directory.path / REMEMBERED, {"mlflow": logger.run_id})
    return logger


def _remembered(directory: RunDirectory, kind: str) -> str | None:
    """Return the tracker's name of a run that is resumed."""
    if not directory.config.resume:
        return None
    try:
        number = json.loads((directory.path / REMEMBERED).read_text(encoding="utf-8"))[kind]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(number)
