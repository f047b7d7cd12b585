"""fit: one detection run from a configuration, as a function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from torch import nn

from excite.checkpoints.bundle import load_exactly
from excite.checkpoints.reading import read_checkpoint
from excite.common.files import write_json, write_text
from excite.common.tables import say
from excite.detect.bodies import count_trainable
from excite.detect.checkpoint import check_classes, load_detector
from excite.detect.config import DetectConfig
from excite.detect.data import DetectionDataset, open_split
from excite.detect.detector import create_detector
from excite.detect.loading import run_loaders
from excite.detect.metrics import Metrics
from excite.detect.module import Batch, DetectionModule
from excite.detect.report import write_report
from excite.engine.history import History
from excite.engine.launch import settle
from excite.engine.module import Row
from excite.engine.norms import synchronised
from excite.engine.rates import resolve_rate
from excite.engine.run import RunDirectory
from excite.engine.sampling import SplitLoader
from excite.engine.trainer import compiled, make_trainer, seeded_run, train
from excite.errors import UsageError

COMMAND = "excite detect train"


@dataclass
class DetectResult:
    """What a run left: its directory, the checkpoint its figures are of, the figures, a row per epoch, the summary.

    best: the best epoch on the validation split, where that is not the one to be tested on; else the last epoch.
    """

    run: Path
    best: Path
    metrics: Metrics
    rows: list[Row]
    summary: dict[str, object]


def fit(config: DetectConfig) -> DetectResult:
    """Train a detector as `config` says, evaluate the epoch that is its result, and return what came out.

    With `config.resume` the run goes on from its last checkpoint (from the start if it has none).
    Raises UsageError for values that cannot work, ExciteError for bad data, NonFiniteLossError (after the last good
    checkpoint was kept).
    """
    config = settle(config)
    rate = None
    if config.lr == "auto":
        config.check()
        config, rate = resolve_rate(config, DetectConfig.from_recipe(config.recipe, data=config.data))
    with seeded_run(config) as directory:
        train_data, val_data = open_splits(config)
        detector = build(config, train_data.class_names)
        directory.claim(COMMAND)
        if directory.first:
            _announce(config, directory.path, detector, train_data, val_data)
            if rate is not None and not config.quiet:
                print(f"lr {config.lr} ({rate})")
        trainer, history = make_trainer(
            config,
            directory,
            # While the backbone is held it gets no gradients.
            unused_parameters=config.freeze_backbone_epochs > 0,
            check_val_every_n_epoch=config.val_every,
            limit_val_batches=None if val_data is not None else 0,
        )
        module = DetectionModule(detector, config, val_data)
        loaders = _loaders(config, trainer, directory, train_data, val_data)
        backbone = detector.get_submodule("backbone")  # the detector itself is all branches
        with synchronised(detector, config.sync_bn), compiled(backbone, config.compile):
            train(trainer, module, directory, COMMAND, **loaders)
        outcome = result_of(config, history.rows, module.score)
        summary = _summary(config, directory.path, detector, (train_data, val_data), history, trainer) | outcome
        checkpoint = directory.path / str(outcome["checkpoint"])
        metrics: Metrics = {}
        if trainer.is_global_zero:
            if val_data is not None:
                best_detector, _ = load_detector(checkpoint, config.backbone)
                device = trainer.strategy.root_device
                metrics = write_report(
                    best_detector, val_data, directory.path, pictures=config.pictures, device=device, name="val"
                )
                summary["metrics"] = metrics
            write_json(directory.path / "summary.json", summary)
    return DetectResult(directory.path, checkpoint, metrics, history.rows, summary)


def result_of(config: DetectConfig, rows: list[Row], score: Callable[[Row], float | None]) -> dict[str, object]:
    """Return which epoch is the run's result, and what of it flatters, as entries of the summary.

    It is the best epoch's where that is chosen on a split which is not a test split (`selects`), else the last one's.
    score: what the best epoch has most of; None for an epoch that was not evaluated.
    """
    scores = [score(row) for row in rows]
    evaluated = [row for row, value in zip(rows, scores, strict=True) if value is not None]
    selects = bool(evaluated) and not config.val_split.startswith("test")
    which = "best" if selects else "last"
    words = {"val": "validation"}.get(config.val_split, config.val_split)
    watched = "" if config.val_split == "none" else f" on the {words} split"
    best = max(evaluated, key=lambda row: score(row) or 0, default=None)
    return {
        "split": config.val_split,
        "selects": selects,
        "result": f"{which} epoch{watched}" + (": optimistic; another split measures it" if selects else ""),
        "checkpoint": f"checkpoints/{which}.ckpt",
        "best_epoch": None if best is None else int(best["epoch"]),
    }


def open_splits(config: DetectConfig) -> tuple[DetectionDataset, DetectionDataset | None]:
    """Open the training and (where there is one) the validation split.

    Raises UsageError where there is nothing to learn, or the two have other categories.
    """
    train_data = open_split(config.data, config.train_split, masks=config.with_masks, limit=config.limit_train)
    val_data = None
    if config.val_split != "none":
        val_data = open_split(config.data, config.val_split, masks=config.with_masks, limit=config.limit_val)
    for dataset in (train_data, val_data):
        if dataset is not None and config.skip_unreadable:
            dataset.drop_unreadable()
    _check_data(train_data, val_data, config)
    return train_data, val_data


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
        checkpoint = read_checkpoint(config.init)
        check_classes(checkpoint.detector, class_names, config.init, config.data)
        load_exactly(detector, checkpoint.weights, config.init)
    return detector


def _check_data(train: DetectionDataset, val: DetectionDataset | None, config: DetectConfig) -> None:
    if not any(not t.ignored for s in train.samples for t in s.annotations):
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
    if config.quiet:
        return
    total = sum(p.numel() for p in detector.parameters())
    name = f"{config.kind} on {config.backbone} ({config.neck})"
    print(f"{name}: {total:,} parameters, {count_trainable(detector):,} trainable")
    images = f"{len(train)} training and {len(val) if val is not None else 0} validation images"
    say(f"data {config.data}: {images}, {len(train.class_names)} categories")
    if skipped:
        say(f"left out {len(skipped)} annotations: {'; '.join(skipped[:3])}{'; ...' if len(skipped) > 3 else ''}")
    if report is not None:
        print(f"backbone from {config.checkpoint}:\n{report}")
    print(f"run {run}", flush=True)


def _loaders(
    config: DetectConfig,
    trainer: L.Trainer,
    directory: RunDirectory,
    train_data: DetectionDataset,
    val_data: DetectionDataset | None,
) -> dict[str, SplitLoader[Batch] | None]:
    rank, world = trainer.global_rank, trainer.world_size
    for dataset, name in ((train_data, "training"), (val_data, "validation")):
        if dataset is not None and len(dataset) < world:
            raise UsageError(f"{len(dataset)} {name} images are too few for {world} processes")
    loader, val_loader = run_loaders(train_data, val_data, config, rank, world)
    if directory.start is not None:
        # Lightning fetches the first batch of a resumed run before it tells the sampler the epoch.
        loader.sampler.set_epoch(directory.epochs)
    return {"train_dataloaders": loader, "val_dataloaders": val_loader}


def _summary(
    config: DetectConfig,
    run: Path,
    detector: nn.Module,
    data: tuple[DetectionDataset, DetectionDataset | None],
    history: History,
    trainer: L.Trainer,
) -> dict[str, object]:
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
