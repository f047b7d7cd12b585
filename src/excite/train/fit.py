"""fit: one training run from a configuration, as a function."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from excite.engine.averaging import averaging
from excite.engine.checkpoint import Keeper
from excite.engine.history import History
from excite.engine.progress import ConsoleCallback
from excite.engine.run import check_free, last_checkpoint, prepare, write_config
from excite.errors import UsageError
from excite.models import spec_of
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData
from excite.train.module import Classifier
from excite.train.network import build_network
from excite.train.samples import save_samples
from excite.train.summary import count, show, summarise, write_summary


@dataclass
class FitResult:
    """What a run left: its directory and checkpoints, the best epoch's scores, a row per epoch, the summary."""

    run: Path
    best: Path
    last: Path
    top1: float
    top5: float
    rows: list[dict[str, float]]
    summary: dict[str, Any]


def fit(config: TrainConfig, init_state: dict[str, torch.Tensor] | None = None) -> FitResult:
    """Train as `config` says and return what came out.

    init_state: weights to start from, of exactly this network. With `config.resume` the run goes on from its last
    checkpoint (from the start if it has none), and a finished run returns at once.
    Raises UsageError for values that cannot work, ExciteError for bad data, NonFiniteLossError (after the last good
    checkpoint was kept).
    """
    config.check()
    _check_device(config)
    check_free(config)
    with _quiet_libraries():
        L.seed_everything(config.seed, verbose=False)
        data = ImageData(config)
        model = build_network(config, data, init_state)
        size = data.preprocess["size"]
        parameters, macs = count(model, size)
        run = prepare(config)  # only now, so that a run that cannot start leaves nothing behind
        write_config(run, config, "excite train")
        save_samples(data, run / "samples")
        history = History(run)
        trainer = _trainer(config, run, history)
        module = Classifier(model, config, spec_of(model))
        if config.channels_last:
            module.to(memory_format=torch.channels_last)
        if config.compile:
            model.compile()
        start = last_checkpoint(run) if config.resume else None
        _train(trainer, module, data, start, run)
    unreadable = data.unreadable()
    summary = summarise(
        history.rows,
        run=str(run),
        model=config.model,
        data=config.data,
        recipe=config.recipe,
        seed=config.seed,
        parameters=parameters,
        macs=macs,
        size=size,
        train_images=len(data.bundle.train),
        val_images=len(data.bundle.val),
        data_seconds=round(data.seconds, 2),
        unreadable=len(unreadable),
        unreadable_names=unreadable[:20],
        device=str(trainer.strategy.root_device),
        precision=config.precision,
    )
    if trainer.is_global_zero:
        write_summary(run, summary)
        if not config.quiet:
            print("\n" + show(summary))
    best, last = (run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    return FitResult(run, best, last, summary["top1"], summary["top5"], history.rows, summary)


def _check_device(config: TrainConfig) -> None:
    cuda = torch.cuda.is_available()
    if config.accelerator == "gpu" and not cuda:
        raise UsageError("--accelerator gpu: torch finds no GPU here")
    if config.precision == "16" and (not cuda or config.accelerator == "cpu"):
        raise UsageError("--precision 16 needs a GPU; on a CPU take --precision bf16 or 32")


def _trainer(config: TrainConfig, run: Path, history: History) -> L.Trainer:
    callbacks: list[Callback] = [history]
    if config.ema:
        callbacks.append(averaging(config.ema))
    if not config.quiet:
        callbacks.append(ConsoleCallback(history, config.epochs))
    callbacks.append(Keeper(run / "checkpoints", history))
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[config.precision],  # type: ignore[arg-type]
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        deterministic="warn" if config.deterministic else None,
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        callbacks=callbacks,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _train(trainer: L.Trainer, module: Classifier, data: ImageData, start: Path | None, run: Path) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except SystemExit:
        # Lightning ends the process on Ctrl-C; callers and the command line want the interrupt itself.
        if trainer.interrupted:
            raise KeyboardInterrupt(f"go on with `excite train --resume {run}`") from None
        raise


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the remarks of libraries out of the output, and what they set out of the process."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    # A deterministic run must not make everything after it in the same process deterministic.
    deterministic, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
