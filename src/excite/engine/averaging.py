"""Exponential moving average of the weights, as a Lightning callback."""

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


def averaging(decay: float) -> WeightAveraging:
    """Return the callback: after each optimizer step, average = d * average + (1 - d) * weights.

    d = min(decay, (1 + t) / (10 + t)) at step t, so that a short run's average does not stay at its random start.
    Validation, checkpoints (`state_dict`) and the final network hold the average.
    """

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        step = int(count)
        now = min(decay, (1 + step) / (10 + step))
        return now * averaged + (1 - now) * current

    return WeightAveraging(avg_fn=average)
