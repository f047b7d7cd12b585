"""fit: one detection run from a configuration, as a function."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from excite.checkpoints.bundle import load_exactly, locate
from excite.common.files import write_text
from excite.detect.bodies import count_trainable
from excite.detect.checkpoint import check_classes, load_detector, read_checkpoint
from excite.detect.config import DetectConfig
from excite.detect.data import DetectionDataset, open_split
from excite.detect.detector import create_detector
from excite.detect.history import History
from excite.detect.loading import eval_loader, train_loader
from excite.detect.module import DetectionModule
from excite.detect.quiet import quiet_libraries
from excite.detect.report import write_report
from excite.engine.averaging import averaging
from excite.engine.run import last_checkpoint, prepare, write_config
from excite.errors import UsageError


@dataclass
class DetectResult:
    """What a run left: its directory, the checkpoint its figures are of, the figures, a row per epoch, the summary."""

    run: Path
    best: Path
    metrics: dict[str, Any]
    rows: list[dict[str, float]]
    summary: dict[str, Any]


def fit(config: DetectConfig) -> DetectResult:
    """Train a detector as `config` says, evaluate its best epoch, and return what came out.

    Raises UsageError for values that cannot work, ExciteError for bad data or a loss that is not finite.
    """
    config.check()
    _check_device(config)
    train = open_split(config.data, config.train_split, masks=config.with_masks, limit=config.limit_train)
    val = None
    if config.val_split != "none":
        val = open_split(config.data, config.val_split, masks=config.with_masks, limit=config.limit_val)
    _check_data(train, val, config)
    L.seed_everything(config.seed, verbose=False)
    detector = build(config, train.class_names)
    run = prepare(config)
    write_config(run, config, "excite detect train")
    _announce(config, run, detector, train, val)
    history = History(run, config.epochs, quiet=config.quiet)
    with quiet_libraries():
        trainer = _trainer(config, run, history, validate=val is not None)
        module = DetectionModule(detector, config, val)
        start = last_checkpoint(run) if config.resume else None
        _train(trainer, module, config, (train, val), start)
    best = locate(run)
    summary = _summary(config, run, detector, (train, val), history, trainer)
    metrics: dict[str, Any] = {}
    if trainer.is_global_zero:
        if val is not None:
            best_detector, _ = load_detector(best)
            device = trainer.strategy.root_device
            metrics = write_report(best_detector, val, run, pictures=config.pictures, device=device, name="val")
            summary["metrics"] = metrics
        write_text(run / "summary.json", json.dumps(summary, indent=2) + "\n")
    return DetectResult(run, best, metrics, history.rows, summary)


def build(config: DetectConfig, class_names: list[str]) -> nn.Module:
    """Build the run's detector with its start weights. Raises UsageError where `init` has other categories."""
    detector = create_detector(
        config.kind,
        config.backbone,
        len(class_names) + 1,
        neck=config.neck,
        neck_attention=config.neck_attention,
        neck_attention_options=config.neck_attention_options,
        frozen_stages=config.frozen_stages,
        frozen_norms=config.frozen_norms,
        checkpoint=config.checkpoint,
        class_names=class_names,
        **{"min_size": tuple(config.min_size), "max_size": config.max_size, **config.options},
    )
    if config.init:
        weights, card, _ = read_checkpoint(config.init)
        check_classes(card, class_names, config.init, config.data)
        load_exactly(detector, weights, config.init)
    return detector


def _check_device(config: DetectConfig) -> None:
    cuda = torch.cuda.is_available()
    if config.accelerator == "gpu" and not cuda:
        raise UsageError("--accelerator gpu: torch finds no GPU here")
    if config.precision == "16" and (not cuda or config.accelerator == "cpu"):
        raise UsageError("--precision 16 needs a GPU; on a CPU take --precision bf16 or 32")


def _check_data(train: DetectionDataset, val: DetectionDataset | None, config: DetectConfig) -> None:
    if not any(not t.ignored for s in train.samples for t in s.things):
        raise UsageError(f"data {config.data!r}, split {config.train_split!r}: no object to learn on any image")
    if val is not None and val.class_names != train.class_names:
        raise UsageError(
            f"data {config.data!r}: splits {config.train_split} and {config.val_split} name other categories"
        )


def _announce(
    config: DetectConfig, run: Path, detector: nn.Module, train: DetectionDataset, val: DetectionDataset | None
) -> None:
    skipped = [*train.skipped, *(val.skipped if val is not None else [])]
    if skipped:
        write_text(run / "skipped.txt", "\n".join(skipped) + "\n")
    report = detector.transfer_report
    if report is not None:
        write_text(run / "transfer.txt", f"{report}\n")
    if config.quiet or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    total = sum(p.numel() for p in detector.parameters())
    name = f"{config.kind} on {config.backbone} ({config.neck})"
    print(f"{name}: {total:,} parameters, {count_trainable(detector):,} trainable")
    images = f"{len(train)} training and {len(val) if val is not None else 0} validation images"
    print(f"data {config.data}: {images}, {len(train.class_names)} categories")
    if skipped:
        print(f"left out {len(skipped)} annotations: {'; '.join(skipped[:3])}{'; ...' if len(skipped) > 3 else ''}")
    if report is not None:
        print(f"backbone from {config.checkpoint}:\n{report}")
    print(f"run {run}", flush=True)


def _trainer(config: DetectConfig, run: Path, history: History, *, validate: bool) -> L.Trainer:
    callbacks: list[Callback] = [history]
    if config.ema:
        callbacks.append(averaging(config.ema))
    # Two callbacks: with save_last, one that watches a score writes the last epoch only when it writes a best one.
    place: dict[str, Any] = {"dirpath": run / "checkpoints", "enable_version_counter": False}
    callbacks.append(ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **place))
    if validate:
        best = ModelCheckpoint(filename="best", monitor="val/AP", mode="max", save_on_train_epoch_end=False, **place)
        callbacks.append(best)
    # While the backbone is held it gets no gradients, which the default strategy takes for an error.
    several = "ddp_find_unused_parameters_true" if config.freeze_backbone_epochs else "ddp"
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=several if config.devices > 1 else "auto",
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[config.precision],  # type: ignore[arg-type]
        max_epochs=config.epochs,
        gradient_clip_val=config.clip or None,
        check_val_every_n_epoch=config.val_every,
        limit_val_batches=None if validate else 0,
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        callbacks=callbacks,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _train(
    trainer: L.Trainer,
    module: DetectionModule,
    config: DetectConfig,
    data: tuple[DetectionDataset, DetectionDataset | None],
    start: Path | None,
) -> None:
    rank, world = trainer.global_rank, trainer.world_size
    loader = train_loader(data[0], config, rank, world)
    val = data[1]
    val_loader = None
    if val is not None:
        val_loader = eval_loader(val, batch_size=config.batch_size, workers=config.workers, rank=rank, world=world)
    if start is not None:
        # Lightning fetches the first batch of a resumed run before it tells the sampler the epoch.
        done = torch.load(start, map_location="cpu", weights_only=True)["epoch"]
        loader.sampler.set_epoch(done + 1)  # type: ignore[attr-defined]
    try:
        trainer.fit(module, loader, val_loader, ckpt_path=start, weights_only=True)
    except SystemExit:
        # Lightning ends the process on Ctrl-C; callers and the command line want the interrupt itself.
        if trainer.interrupted:
            raise KeyboardInterrupt("go on with `excite detect train --resume RUN`") from None
        raise


def _summary(
    config: DetectConfig,
    run: Path,
    detector: nn.Module,
    data: tuple[DetectionDataset, DetectionDataset | None],
    history: History,
    trainer: L.Trainer,
) -> dict[str, Any]:
    train, val = data
    return {
        "run": str(run),
        "kind": config.kind,
        "backbone": config.backbone,
        "data": config.data,
        "recipe": config.recipe,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in detector.parameters()),
        "trainable": count_trainable(detector),
        "train_images": len(train),
        "val_images": len(val) if val is not None else 0,
        "skipped": len(train.skipped) + (len(val.skipped) if val is not None else 0),
        "epochs": len(history.rows),
        "seconds": round(sum(r["seconds"] for r in history.rows), 1),
        "device": str(trainer.strategy.root_device),
        "precision": config.precision,
    }
