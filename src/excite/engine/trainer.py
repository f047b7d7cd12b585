"""One training run: what is checked first, how Lightning is set up, and how a run ends."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from excite.common.extras import EXTRA_OF, require
from excite.common.options import Precision
from excite.engine.callbacks import (
    CheckpointCallback,
    CheckpointFiles,
    ConsoleCallback,
    DirectoryCallback,
    StopCallback,
    averaging,
)
from excite.engine.config import RunConfig, check_resume
from excite.engine.guard import GuardCallback
from excite.engine.history import History
from excite.engine.loggers import finish, make_logger
from excite.engine.module import RunModule
from excite.engine.process import quiet_libraries, unchanged
from excite.engine.run import RunDirectory, check_free
from excite.engine.sharding import Sharding
from excite.errors import ExciteError, UsageError
from excite.runtime import pick_device

# Any: settings that Lightning's Trainer takes.

# What Lightning calls a precision.
PRECISIONS: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


@contextlib.contextmanager
def seeded_run(config: RunConfig) -> Iterator[RunDirectory]:
    """Check what can be checked before anything is opened, seed, and leave the process as it was afterwards.

    Yields the run's directory, still to be claimed; it is released at the end.
    Raises UsageError for values that cannot work.
    """
    config.check()
    check_device(config)
    if config.logger in EXTRA_OF:
        require(config.logger)
    check_free(config)
    check_resume(config)
    with unchanged(), quiet_libraries():
        L.seed_everything(config.seed, verbose=False)
        directory = RunDirectory(config)
        try:
            yield directory
        finally:
            directory.release()


def check_device(config: RunConfig) -> None:
    """Raise UsageError where the machine lacks what the configuration asks for."""
    device = pick_device(config.device)
    if config.precision == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs a GPU; on a CPU take --precision bf16 or fp32")


def make_trainer(
    config: RunConfig,
    directory: RunDirectory,
    *,
    more: Sequence[Callback] = (),
    unused_parameters: bool = False,
    sharded: bool = False,
    **settings: Any,
) -> tuple[L.Trainer, History]:
    """Return Lightning's trainer and the history that it fills.

    more: callbacks of the caller's own; unused_parameters: some parameters get no gradient in some steps, which several
    processes must know; sharded: each process keeps a part of the network; settings: further ones of the trainer.
    """
    history = History(directory)
    callbacks: list[Callback] = [DirectoryCallback(directory), history, *more]
    if config.non_finite == "skip" or config.trace_non_finite or config.grad_norm:
        callbacks.append(GuardCallback(config))
    if config.patience:
        callbacks.append(StopCallback(history, config.patience))
    if config.ema:
        callbacks.append(averaging(config.ema))
    if not config.quiet:
        callbacks.append(ConsoleCallback(history, config))
    callbacks.append(CheckpointCallback(directory, history, config))
    strategy: str | Sharding = "auto"
    if sharded:
        strategy = Sharding(config.processes)
    elif unused_parameters and config.processes > 1:
        strategy = "ddp_find_unused_parameters_true"
    trainer = L.Trainer(
        accelerator="gpu" if pick_device(config.device) == "cuda" else "cpu",
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy,
        inference_mode=not sharded,
        precision=PRECISIONS[config.precision],
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        deterministic="warn" if config.deterministic else None,
        limit_train_batches=config.limit_batches,
        logger=make_logger(directory) or False,
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )
    return trainer, history


def completed(trainer: L.Trainer, epochs: int) -> None:
    """Let a trainer count epochs that another script has trained."""
    progress = trainer.fit_loop.epoch_progress
    for tracker in (progress.total, progress.current):
        for name in ("ready", "started", "processed", "completed"):
            setattr(tracker, name, epochs)


@contextlib.contextmanager
def compiled(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Run a network through torch.compile within the block, where that is wanted; afterwards it runs as before."""
    before = network._compiled_call_impl  # what `compile` sets; torch has no public way back
    if wanted:
        network.compile()
    try:
        yield
    finally:
        network._compiled_call_impl = before


def train(trainer: L.Trainer, module: RunModule, directory: RunDirectory, command: str, **data: Any) -> None:
    """Train to the planned end, from the checkpoint that a resumed run stands at.

    command: what resumes the run; data: Lightning's `datamodule`, or `train_dataloaders` and `val_dataloaders`; those
    with a `close` are closed in the end.
    Raises KeyboardInterrupt, which names the command to go on with; ExciteError where that checkpoint is damaged.
    """
    config = module.config
    if config.channels_last:
        module.to(memory_format=torch.channels_last)
    start = directory.start
    try:
        trainer.fit(module, ckpt_path=start, weights_only=True, **data)
    except SystemExit:
        # Lightning ends the process on Ctrl-C; callers and the command line want the interrupt itself.
        if trainer.interrupted:
            raise KeyboardInterrupt(f"go on with `{command} --resume {shlex.quote(str(directory.path))}`") from None
        raise
    except (ExciteError, OSError, MemoryError):
        raise
    except Exception as error:
        if config.processes > 1 and _is_lost(error):
            remedy = f"`{command} --resume {shlex.quote(str(directory.path))}` goes on from the last checkpoint"
            first = str(error).splitlines()[0].partition(". This is")[0]  # gloo: [FILE:LINE] what happened. Advice
            reason = first.partition("] ")[2] or first
            raise ExciteError(f"another process of the run ended: {reason}; {remedy}") from error
        if start is None or directory.under_way:
            raise
        raise directory.broken(error, start) from error  # entries of any kind lead Lightning anywhere
    finally:
        for source in data.values():
            if hasattr(source, "close"):
                source.close()
        finish(trainer.loggers)


def _is_lost(error: Exception) -> bool:
    """Return whether a process could not reach another one of its run."""
    words = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "by peer", "nccl"))
    )
