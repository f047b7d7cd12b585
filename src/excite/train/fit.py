"""fit: one classification run from a configuration, as a function."""

import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import nn
from torchmetrics import Metric

from excite import recipes
from excite.common.files import replacing, safe_name
from excite.common.options import flag
from excite.data import DataBundle
from excite.data.preprocess import UnreadableImageError
from excite.engine.config import is_code
from excite.engine.launch import settle
from excite.engine.module import Row, gather
from excite.engine.norms import synchronised
from excite.engine.rates import rate_advice, resolve_rate
from excite.engine.trainer import compiled, completed, make_trainer, seeded_run, train
from excite.errors import UsageError
from excite.models import spec_of
from excite.runtime import pick_device
from excite.train.config import FOR_TRAINED, TrainConfig
from excite.train.datamodule import ImageData
from excite.train.finetune import freeze, is_untrained, restoring
from excite.train.losses import ClassificationLoss, Loss, class_weights, say_balance
from excite.train.lr_find import find_lr
from excite.train.memory import check_memory
from excite.train.module import Classifier
from excite.train.network import adopt_network, build_network, start_of
from excite.train.summary import count, header, show, summarise, write_summary

FEW_STEPS = 5  # of an epoch


@dataclass
class FitResult:
    """What a run left: its directory and checkpoints, the best epoch's scores, a row per epoch, the summary."""

    run: Path
    best: Path
    last: Path
    top1: float
    top5: float
    rows: list[Row]
    summary: dict[str, object]


def fit(
    config: TrainConfig,
    init_state: dict[str, torch.Tensor] | None = None,
    *,
    network: nn.Module | None = None,
    bundle: DataBundle | None = None,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train as `config` says and return what came out.

    init_state: weights to start from, of exactly this network. network, bundle: take these instead of building
    `config.model` and opening `config.data`. loss, metrics, callbacks: see `excite.fit`. With `config.resume` the run
    goes on from its last checkpoint (from the start if it has none), and a finished run returns at once.
    Raises UsageError for values that cannot work, ExciteError for bad data, NonFiniteLossError (after the last good
    checkpoint was kept).
    """
    config = settle(config)
    rate = None
    if config.lr == "auto":
        config.check()
        config, rate = resolve_rate(config, TrainConfig.from_recipe(config.model, config.recipe, data=config.data))
    with seeded_run(config) as directory, ExitStack() as after:
        check_given(config, network, loss)
        if not config.quiet and directory.first:
            print(header(config, directory, rate))
        data = ImageData(config, bundle)
        if network is None:
            model = build_network(config, data, init_state)
        else:
            model = adopt_network(network, config, data)
            after.enter_context(restoring(network))
        start = start_of(model, config)
        config = prepare(model, config)
        if config.balance == "loss":
            loss = ClassificationLoss(config, class_weights(data.labels, data.bundle.num_classes))
        if config.balance != "none" and not config.quiet:
            print(say_balance(data.labels, data.bundle.class_names, config.balance))
        if config.lr == "find":
            config = replace(config, lr=find_lr(model, config, spec_of(model), data, loss))
            if not config.quiet:
                print(f"lr {config.lr}: there the loss fell most steeply in a trial")
        size, channels = data.preprocess.size, spec_of(model).in_channels
        memory = check_memory(model, config, size, pick_device(config.device), channels, len(data.bundle.train))
        parameters, macs = count(model, size, channels)
        module = Classifier(
            model,
            config,
            spec_of(model),
            data.bundle.val_name,
            selects=data.bundle.selects,
            loss=loss,
            metrics=metrics,
        )
        directory.config = config
        directory.claim(command(config))  # only now, so that a run that cannot start leaves nothing behind
        if directory.first:
            save_samples(data, directory.path / "samples")
        if directory.first and not config.quiet:
            print("\n".join(opening(config, data, memory)))
        trainer, history = make_trainer(
            config,
            directory,
            more=callbacks,
            unused_parameters=config.freeze_backbone_epochs > 0,
            sharded=config.strategy == "fsdp",
        )
        if start is not None:
            module.start_from(start.epochs, start.state)
            completed(trainer, start.epochs)
        with synchronised(model, config.sync_bn), compiled(model, config.compile):
            train(trainer, module, directory, command(config), datamodule=data)
        unreadable = sorted({*gather(data.unreadable())}) if config.processes > 1 else data.unreadable()
        summary = summarise(
            history.rows,
            module.score,
            run=str(directory.path),
            model=config.model,
            data=config.data,
            recipe=config.recipe,
            seed=config.seed,
            parameters=parameters,
            macs=macs,
            size=size,
            train_images=len(data.bundle.train),
            val_images=len(data.bundle.val),
            split=data.bundle.val_name,
            selects=data.bundle.selects,
            data_seconds=round(data.seconds, 2),
            unreadable=len(unreadable),
            unreadable_names=unreadable[:20],
            device=str(trainer.strategy.root_device),
            precision=config.precision,
        )
        if trainer.is_global_zero:
            write_summary(directory.path, summary)
            if not config.quiet:
                print("\n" + show(summary))
    best = directory.path / "checkpoints" / "best.ckpt"
    return FitResult(directory.path, best, directory.last, summary["top1"], summary["top5"], history.rows, summary)


def command(config: TrainConfig) -> str:
    """Return the command that goes on with a run, or repeats it: what no file may name stands in it."""
    words = ["excite train"]
    if ":" in config.model:
        words.append(shlex.quote(config.model))
    if is_code(config.data):
        words += ["--data", shlex.quote(config.data)]
    return " ".join(words)


def check_given(config: TrainConfig, network: nn.Module | None, loss: Loss | None) -> None:
    """Raise UsageError where a configuration does not go with what a program gave."""
    if network is not None and config.strategy == "fsdp":
        raise UsageError("strategy fsdp is for networks by name: of one that a program built, parts would come back")
    if config.loss == "own" and loss is None:
        raise UsageError("this run has a loss of its own; go on with excite.fit(..., loss=FUNCTION)")


def prepare(model: nn.Module, config: TrainConfig) -> TrainConfig:
    """Freeze what `config` says; return what it comes to for this network.

    A network of fresh weights has no backbone worth holding: what a recipe says of that is left out, and a run that was
    resumed knows it. Raises UsageError where somebody asked for it.
    """
    if config.freeze:
        text = freeze(model, config.freeze)
        if not config.quiet:
            print(text)
    apart = [name for name, value in FOR_TRAINED.items() if getattr(config, name) != value]
    if not apart or config.resume or not is_untrained(model):
        return config
    recipe = recipes.load(config.recipe) if config.recipe in recipes.names() else {}
    for name in apart:
        if getattr(config, name) != recipe.get(name):
            raise UsageError(
                f"{flag(name)} {getattr(config, name)}: the network's weights are fresh (its norms stand as they were "
                "made), so its backbone has nothing to keep; start with --pretrained or --init CHECKPOINT"
            )
    if not config.quiet:
        print(
            "note: the network's weights are fresh, so all of it learns alike; --pretrained and --init start from "
            "trained ones"
        )
    return replace(config, freeze_backbone_epochs=0, backbone_lr_factor=1.0, layer_decay=1.0)


def opening(config: TrainConfig, data: ImageData, memory: str | None) -> list[str]:
    """Return what a run says of its data before its first epoch: splits, size, memory, and a rate that may not fit."""
    size = data.preprocess.size
    lines = [f"data: {data.bundle.spec}: {data.bundle.describe()}", *data.bundle.notes]
    lines.append(f"size: {size} x {size} pixels ({data.size_from})" + (f"; {memory}" if memory else ""))
    if config.patience and not data.bundle.selects:
        watched = f"note: --patience looks at the {data.bundle.val_name} split, on which the result is measured"
        lines.append(f"{watched}; --val-fraction 0.1 holds out other images")
    if (advice := steps_advice(config, len(data.bundle.train))) is not None:
        lines.append(f"note: {advice}")
    recipe = usual_config(config)
    advice = rate_advice(config, recipe) if recipe is not None else None
    return lines + ([] if advice is None else [f"note: {advice}"])


def steps_advice(config: TrainConfig, images: int) -> str | None:
    """Return a warning where an epoch has few steps and smaller batches would make more; None elsewhere."""
    steps = max(images // config.batch_size, 1)
    smaller = max(2 ** int(math.log2(max(images / (FEW_STEPS * 2), 1))), 4) * config.processes
    more = images // smaller
    if steps >= FEW_STEPS or more <= steps:
        return None
    an_epoch = f"{steps} step{'s' * (steps > 1)} an epoch"
    return (
        f"{images} training images in batches of {config.batch_size} make {an_epoch}; "
        f"--batch-size {smaller} --lr auto makes {more}"
    )


def usual_config(config: TrainConfig) -> TrainConfig | None:
    """Return what a run's recipe says without any option; None where the recipe is gone."""
    try:
        return TrainConfig.from_recipe(config.model, config.recipe, data=config.data)
    except UsageError:
        return None


def save_samples(data: ImageData, folder: Path, most: int = 10) -> None:
    """Write the first validation image of each of the first classes as CLASS.png."""
    images = data.val_images if data.cached else data.val_source
    seen: set[int] = set()
    taken: set[str] = set()
    for index in range(min(len(images), 20 * most)):
        try:
            image, label = images[index]
        except UnreadableImageError:
            continue
        if label in seen:
            continue
        seen.add(label)
        if isinstance(image, torch.Tensor) and len(image) != 3:
            return  # of other channels there is no picture
        if isinstance(image, torch.Tensor):
            image = Image.fromarray(np.asarray(image.permute(1, 2, 0)))
        with replacing(folder / f"{safe_name(data.bundle.class_names[label], taken)}.png") as file:
            image.save(file)
        if len(seen) == min(most, data.bundle.num_classes):
            return
