"""The learning rate that belongs to a batch: the linear rule (Goyal et al., arXiv:1706.02677).

A recipe's rate is for its images per optimizer step (batch of all processes x accumulated batches) and follows them.
"""

from dataclasses import replace
from typing import TypeVar

from excite.engine.config import RunConfig
from excite.errors import UsageError

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def resolve_rate(config: AnyConfig, recipe: RunConfig) -> tuple[AnyConfig, str | None]:
    """Return `config` with a number for `lr: auto`, and in words where it is from (None: nothing was asked for).

    recipe: the recipe's own configuration. Raises UsageError where its rate is none that could be scaled.
    """
    if config.lr != "auto":
        return config, None
    if isinstance(recipe.lr, str):
        raise UsageError(f"--lr auto scales the rate of a recipe, and that of {recipe.recipe} is {recipe.lr!r}")
    if config.optimizer != recipe.optimizer:
        raise UsageError(
            f"--lr auto scales the rate of the recipe {recipe.recipe}, which is for --optimizer {recipe.optimizer}; "
            f"with {config.optimizer} give --lr a number"
        )
    images, usual = config.images_per_step, recipe.images_per_step
    rate = float(f"{recipe.lr * images / usual:.6g}")
    return replace(
        config, lr=rate
    ), f"auto: {recipe.lr:g} of the recipe {recipe.recipe} x {images} / {usual} images a step"


def rate_advice(config: RunConfig, recipe: RunConfig) -> str | None:
    """Return a warning where a recipe's learning rate goes with steps of a very different size; None elsewhere."""
    images, usual = config.images_per_step, recipe.images_per_step
    if config.optimizer != "sgd" or config.lr != recipe.lr or usual / 2 <= images <= 2 * usual:
        return None
    return (
        f"the rate {config.peak_lr:g} of the recipe {config.recipe} is for {usual} images a step, these are {images}; "
        f"by the linear rule that is --lr {config.peak_lr * images / usual:.2g} (--lr auto takes it)"
    )
