"""`excite train`: train a classifier."""

import json as json_
from pathlib import Path
from typing import Any

from excite.engine.config import file_values, read_run
from excite.train.config import TrainConfig, resolve_recipe

# Any: options as they are read, before they are checked.


def train(config: TrainConfig, *, json: bool = False) -> None:
    """Train a classifier; without arguments eca_resnet20 learns handwritten digits.

    The recipe gives the defaults, --config FILE and options override them. --resume DIR goes on with a run.

    Args:
        json: print JSON: the summary, instead of progress.

    Examples:
        excite train eca_resnet50_cifar --data cifar10 --recipe emanet-cifar10 --out runs/eca50
        excite train timm/regnety_016 --attach eca --data imagefolder:PATH --options.drop_path_rate 0.1
    """
    from excite.train.fit import fit

    config.quiet = config.quiet or json
    result = fit(config)
    if json:
        print(json_.dumps(result.summary, indent=2))


def train_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults where so much was given: the run's that is resumed, else the recipe's."""
    from excite import recipes

    if given.get("resume") and Path(given["resume"]).is_file():
        from excite.checkpoints.resume import no_run

        raise no_run(given["resume"])
    if given.get("resume"):
        return {**read_run(TrainConfig, given["resume"], given), "resume": given["resume"]}
    base = TrainConfig()
    model, data = given.get("model", base.model), given.get("data", base.data)
    name = resolve_recipe(given.get("recipe", "auto"), model, data)
    return {**file_values(TrainConfig, recipes.load(name), f"recipe {name}", given), "recipe": name}
