"""Which options of a training a comparison can honour: all variants must start, learn and end alike."""

from collections.abc import Collection
from dataclasses import MISSING, fields

from excite import recipes
from excite.errors import UsageError
from excite.train.config import FOR_TRAINED, TrainConfig

# What every run decides for itself; a comparison that set them would not be one.
RESERVED = (
    "model", "data", "recipe", "seed", "out", "resume", "overwrite", "quiet", "options", "init", "placement", "attach",
    "attach_sites", "attach_options",
)  # fmt: skip
# Those of them that no run sets itself in every case: a recipe could, unseen.
UNSEEN = ("resume", "overwrite", "init", "placement", "attach", "attach_sites", "attach_options")

FRESH = "all variants of a seed start from the same fresh weights"
HELD = f"{FRESH}, so there are no trained ones to hold"
LENGTH = "top-1 is that of the last epoch, and runs of other lengths are no equals; --epochs is the length of all"
ONE = "a run of a comparison is one process; --jobs N and --ray train several runs at a time"
# Options that are refused for any other value than their default, and why.
UNFIT = {
    "pretrained": FRESH,
    "start": FRESH,
    **dict.fromkeys(FOR_TRAINED, HELD),
    "patience": LENGTH,
    "devices": ONE,
    "nodes": ONE,
    "sync_bn": ONE,
    "strategy": ONE,
}
# Options that are refused for one value.
UNFIT_VALUES = {
    "lr": (
        "find",
        "each run would learn at a rate of its own; find one rate with `excite train {model} --data {data} --lr find`, "
        "and give its number as --train.lr",
    ),
    "loss": ("own", "a function of yours trains one network, by excite.fit(..., loss=FUNCTION)"),
}
DEFAULTS = {
    field.name: field.default if field.default_factory is MISSING else field.default_factory()
    for field in fields(TrainConfig)
}


def check_reserved(changes: Collection[str]) -> None:
    """Raise UsageError for the first typed option that every run decides for itself."""
    for name in changes:
        if name in RESERVED:
            raise UsageError(f"--train.{name}: a comparison decides that itself")


def check_training(config: TrainConfig, changes: Collection[str]) -> None:
    """Raise UsageError for the first option of a run, typed (those are `changes`) or its recipe's, that is unfit."""
    unfit = {name: why for name in DEFAULTS if (why := _why_not(name, config)) is not None}
    for name, why in unfit.items():
        if name in changes:
            raise UsageError(f"--train.{name} {getattr(config, name)}: {why}")
    if unfit:
        raise UsageError(f"--recipe {config.recipe} sets {' and '.join(unfit)}: {next(iter(unfit.values()))}")
    recipe = recipes.load(config.recipe)
    for name in UNSEEN:
        if recipe.get(name, DEFAULTS[name]) != DEFAULTS[name]:
            raise UsageError(f"--recipe {config.recipe} sets {name}: a comparison decides that itself")


def _why_not(name: str, config: TrainConfig) -> str | None:
    value = getattr(config, name)
    refused, why = UNFIT_VALUES.get(name, (None, ""))
    if refused is not None and value == refused:
        return why.format(model=config.model, data=config.data)
    return UNFIT[name] if name in UNFIT and value != DEFAULTS[name] else None
