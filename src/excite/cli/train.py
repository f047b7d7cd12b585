"""`excite train`: train a classifier."""

import json as json_
from pathlib import Path
from typing import Any

from excite.backbones.names import split_name
from excite.engine.config import file_values, read_run
from excite.errors import UsageError
from excite.train.config import TrainConfig, resolve_recipe

# Any: options as they are read, before they are checked.


def train(config: TrainConfig, *, json: bool = False) -> None:
    """Train a classifier; without arguments eca_resnet20 learns handwritten digits.

    The recipe gives the defaults, --config FILE and options override them. --resume DIR goes on with a run; --resume
    FILE, of another training script, starts a run with its network, weights, epoch and optimizer, as far as they fit.

    Args:
        json: print JSON: the summary, instead of progress.

    Examples:
        excite train eca_resnet50_cifar --data cifar10 --recipe emanet-cifar10 --out runs/eca50
        excite train timm/regnety_016 --attach eca --data imagefolder:PATH --options.drop_path_rate 0.1
    """
    from excite.engine.launch import speaks
    from excite.train.fit import fit

    config.quiet = config.quiet or json
    if config.resume and Path(config.resume).is_file():
        config.start, config.resume = config.resume, None
    check_placement(config)
    result = fit(config)
    if json and speaks():
        print(json_.dumps(result.summary, indent=2))


def check_placement(config: TrainConfig) -> None:
    """Raise UsageError where a network that has no attention is to have it in some blocks; a comparison's may."""
    ours = not any(mark in config.model for mark in "/:")
    if config.placement == "all" or not ours or split_name(config.model)[0] != "none":
        return
    remedy = (
        "--attach-sites says where --attach puts it" if config.attach else f"take a name such as eca_{config.model}"
    )
    raise UsageError(f"--placement {config.placement}: {config.model} has no attention of its own; {remedy}")


def train_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults where so much was given: the run's that is resumed, else the recipe's.

    Of another script's file that is resumed, the network is a default too.
    """
    from excite import recipes

    there: dict[str, Any] = {}
    if given.get("resume") and Path(given["resume"]).is_file():
        from excite.checkpoints.resume import network_options

        there = {} if "model" in given else network_options(given["resume"])
    elif given.get("resume"):
        return {**read_run(TrainConfig, given["resume"], given), "resume": given["resume"]}
    base = TrainConfig()
    model, data = given.get("model", there.get("model", base.model)), given.get("data", base.data)
    name = resolve_recipe(given.get("recipe", "auto"), model, data)
    values = file_values(TrainConfig, recipes.load(name), f"recipe {name}", given)
    if there:
        values = {**values, **there, "options": {**values.get("options", {}), **there["options"]}}
    return {**values, "recipe": name}
