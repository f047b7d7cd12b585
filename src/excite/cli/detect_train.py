"""`excite detect train`: train a detector."""

import json as json_
from typing import Any

from excite.detect.config import DetectConfig, resolve_recipe
from excite.engine.config import file_values, read_run

# Any: options as they are read, before they are checked.


def train(config: DetectConfig, *, json: bool = False) -> None:
    """Train a detector; without arguments a Faster R-CNN on eca_resnet20 learns drawn shapes.

    The recipe gives the defaults, --config FILE and options override them. --resume DIR goes on with a run.

    Args:
        json: print JSON: the summary, instead of progress.

    Examples:
        excite detect train --kind mask_rcnn --out runs/masks
        excite detect train eca_resnet50 --data coco:PATH --recipe ecanet-coco-1x --checkpoint eca_resnet50.pth
    """
    from excite.detect.evaluate import show
    from excite.detect.fit import fit
    from excite.engine.launch import speaks

    config.quiet = config.quiet or json
    result = fit(config)
    if not speaks():
        return
    if json:
        print(json_.dumps(result.summary, indent=2))
    elif not config.quiet:
        if result.metrics:
            print(f"\n{show(result.metrics)}\nresult: {result.summary['result']}")
        print(f"\nfiles  {result.run}: config.yaml metrics.csv curves.png summary.json checkpoints/ tensorboard/")
        print(f"next   excite detect test {result.run}\n       excite detect predict {result.run} IMAGE")


def train_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults where so much was given: the run's that is resumed, else the recipe's."""
    from excite.recipes import detection as recipes

    if given.get("resume"):
        return {**read_run(DetectConfig, given["resume"], given), "resume": given["resume"]}
    name = resolve_recipe(given.get("recipe", "auto"), given.get("data", "shapes"))
    return {**file_values(DetectConfig, recipes.load(name), f"recipe {name}", given), "recipe": name}
