"""`excite.fit`: train from Python, on a network and data that need no name."""

import os
from collections.abc import Mapping, Sequence

from lightning.pytorch.callbacks import Callback
from torch import nn
from torchmetrics import Metric

from excite.card import CARD
from excite.common.holdout import read_cut
from excite.common.options import Option
from excite.data import DataBundle
from excite.data.mapped import LabelledImages, bundle_of, kind_of
from excite.data.preprocess import UnreadableImageError
from excite.data.specs import GIVEN
from excite.data.splits import NO_CUT
from excite.engine.config import read_run
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.train.config import TrainConfig
from excite.train.fit import FitResult
from excite.train.fit import fit as fit_config
from excite.train.losses import Loss

BUILT_IN = ("loss", "top1", "top5", "macro_f1", "balanced_accuracy")


def fit(
    model: str | nn.Module,
    data: str
    | os.PathLike[str]
    | DataBundle
    | LabelledImages
    | Sequence[LabelledImages]
    | Mapping[str, LabelledImages],
    recipe: str = "finetune",
    *,
    loss: str | Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Option,
) -> FitResult:
    """Train a classifier and return what came out; its directory can be tested, explained and exported.

    model: a name (eca_resnet50, timm/NAME, ...), or a network with as many outputs as the data have classes, which is
    trained in place. data: a spec (digits, a folder's path, ...), a DataBundle, or map-style data sets of (image,
    label), also as {"image": ..., "label": ...}: one, of which a fifth of each class is held out (or `val_fraction`),
    two (training, validation), or three (and test). recipe: a recipe's name or file; options: those of `excite train`
    that differ from it, as epochs=4, out="runs/mine". resume="runs/mine" goes on with a run, by its own options.
    loss: the word that `--loss` takes, or a function of logits [n c] and labels [n] (or shares [n c], where images are
    mixed) that gives one number; it is used in validation, too. metrics: torchmetrics of logits and labels; each fills
    a column val_NAME. callbacks: Lightning's.
    Raises UsageError for what cannot work, ExciteError for bad data or a loss that is not finite.
    """
    check_parts(loss, metrics or {}, callbacks)
    if loss is not None:
        options["loss"] = loss if isinstance(loss, str) else "own"
    if isinstance(data, os.PathLike):
        data = os.fspath(data)
    name = model if isinstance(model, str) else name_of(model)
    config = config_of(name, spec_of_data(data), recipe, options)
    bundle: DataBundle | None = None
    if not isinstance(data, str):
        config.check()
        cut = NO_CUT if isinstance(data, DataBundle) else read_cut(config.data)[1]
        bundle = bundle_of(data, config.data, cut, limit_train=config.limit_train, limit_val=config.limit_val)
    try:
        return fit_config(
            config,
            network=None if isinstance(model, str) else model,
            bundle=bundle,
            loss=None if isinstance(loss, str) else loss,
            metrics=metrics or {},
            callbacks=callbacks,
        )
    except UnreadableImageError as error:
        error.offer(f"go on with {error.option}=True")
        raise


def spec_of_data(data: object) -> str:
    """Return what a run records of its data. Raises UsageError for what is no data."""
    if isinstance(data, str):
        return data
    return data.spec if isinstance(data, DataBundle) else f"{GIVEN}{kind_of(data)}"


def config_of(model: str, spec: str, recipe: str, options: Mapping[str, Option]) -> TrainConfig:
    """Return the configuration of a new run by its recipe, or that of the run which is resumed. Raises UsageError."""
    run = options.get("resume")
    if not run:
        return TrainConfig.from_recipe(model, recipe, data=spec, **options)
    recorded = str(read_run(TrainConfig, run, ("model", "data")).get("data"))
    if read_cut(recorded)[0] in (spec, spec.removeprefix(GIVEN)):
        spec = recorded  # with the shares that it held out
    changes = dict(options) if recipe == "finetune" else {"recipe": recipe, **options}
    return TrainConfig.from_run(run, **{"model": model, "data": spec, **changes})


def check_parts(loss: object, metrics: Mapping[str, object], callbacks: Sequence[object]) -> None:
    """Raise UsageError for parts of a fit that are not what they must be."""
    if loss is not None and not isinstance(loss, str) and not callable(loss):
        raise UsageError(f"loss is {type(loss).__name__}; a function of logits and labels is needed, or a word")
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise UsageError("the loss has parameters of its own, which nothing would train; make them part of the network")
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise UsageError(f"metric {name} is {type(metric).__name__}; a torchmetrics.Metric is needed")
        if not name.isidentifier() or name in BUILT_IN:
            raise UsageError(f"a metric cannot be called {name!r}; take another word (not {', '.join(BUILT_IN)})")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UsageError(f"callback {type(callback).__name__} is none of Lightning's (lightning.Callback)")


def name_of(model: nn.Module) -> str:
    """Return the name in a network's card, else that of its class."""
    card = getattr(model, CARD, None)
    return card.name if isinstance(card, NetworkSpec) else type(model).__name__
