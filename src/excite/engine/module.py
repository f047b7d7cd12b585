"""What the Lightning modules of all runs share: optimizer and schedule, the watch on the loss, what is recorded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from excite.engine.config import RunConfig
from excite.engine.optim import lr_factor, make_optimizer
from excite.errors import ExciteError

CHECK_EVERY = 20  # steps between looks at the loss on a GPU, where each look waits for the device

Row = dict[str, float]


SCORE = "val/score"  # what `RunModule.score` says of the epoch, as Lightning's callbacks read it


class NonFiniteLossError(ExciteError):
    """The loss became NaN or infinite."""

    def __init__(self, step: int, epoch: int, batch: int | None, parts: str, checkpoint: str) -> None:
        self.step, self.epoch, self.batch = step, epoch, batch
        where = "validation" if batch is None else f"batch {batch + 1}"
        super().__init__(
            f"the loss is not finite at step {step} (epoch {epoch + 1}, {where}{parts}); {checkpoint}. "
            "Try a lower --lr, --clip 1, a longer warm-up or --precision fp32"
        )


class Panel(NamedTuple):
    """One panel of a run's curves: its title, the columns by label, and what the numbers are multiplied with."""

    title: str
    columns: dict[str, str]
    factor: float = 1.0


class Step(NamedTuple):
    """A training step whose loss was not looked at yet."""

    step: int
    epoch: int
    batch: int
    loss: Tensor
    parts: Mapping[str, Tensor]


class RunModule(L.LightningModule):
    """A network in training. Subclasses add the losses, the metrics, and what of them is recorded.

    network: what the optimizer trains; config: of the run.
    """

    def __init__(self, network: nn.Module, config: RunConfig) -> None:
        super().__init__()
        # Subclasses hold the network under the name that their checkpoints use; here it must not be a second child.
        self._network = (network,)
        self.config = config
        self.lr_factors: Mapping[int, float] = {}  # by id of the parameter, where it is not 1
        self.loss: Tensor | None = None
        self.unchecked: list[Step] = []
        self.last_good = "no epoch was completed, so there is no checkpoint"
        self.earlier: tuple[int, Mapping[str, Mapping[str, Tensor]]] = (0, {})

    def start_from(self, epochs: int, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on with a training of another script: epochs it completed, its optimizer's state by parameter."""
        self.earlier = (epochs, state)

    # What a subclass says about an epoch.

    def epoch_row(self) -> Row:
        """Return the epoch's numbers, as columns of metrics.csv."""
        raise NotImplementedError

    def describe(self, row: Row) -> str:
        """Return the row's numbers as the epoch's line shows them."""
        raise NotImplementedError

    def score(self, row: Row) -> float | None:
        """Return the number whose highest value marks the best epoch; None for an epoch without validation."""
        raise NotImplementedError

    def panels(self, rows: list[Row]) -> list[Panel]:
        """Return what the curves show beside the learning rate."""
        raise NotImplementedError

    def count(self, batch: Any) -> int:  # every kind of run has batches of its own
        """Return the number of images in a batch."""
        raise NotImplementedError

    # What all runs do alike.

    def watch(self, loss: Tensor, batch: int, parts: Mapping[str, Tensor] | None = None) -> None:
        """Note the detached loss of a step (and its parts). Raises NonFiniteLossError, on a GPU some steps later."""
        self.loss = loss
        self.unchecked.append(Step(self.global_step, self.current_epoch, batch, loss, parts or {}))
        if loss.device.type != "cuda" or len(self.unchecked) >= CHECK_EVERY:
            self.check_losses()

    def check_losses(self) -> None:
        """Raise NonFiniteLossError for the first loss since the last look that is not finite."""
        pending, self.unchecked = self.unchecked, []
        if not pending or torch.isfinite(torch.stack([step.loss for step in pending])).all():
            return
        bad = next(step for step in pending if not torch.isfinite(step.loss))
        parts = "".join(f", {name} {float(value):.3g}" for name, value in bad.parts.items())
        raise NonFiniteLossError(bad.step, bad.epoch, bad.batch, parts, self.last_good)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and a schedule that moves every step."""
        optimizer = make_optimizer(self._network[0], self.config, self.lr_factors)
        steps = max(float(self.trainer.estimated_stepping_batches) / self.config.epochs, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(self.config, step, steps))
        epochs, state = self.earlier
        schedule.last_epoch = round(epochs * steps)
        for name, parameter in self._network[0].named_parameters():
            if name in state:
                optimizer.state[parameter] = {
                    word: value.clone() if word == "step" else value.to(parameter, copy=True)
                    for word, value in state[name].items()
                }
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Set the learning rate of the step to come: of a resumed run it follows the schedule of its new length."""
        schedule = self.lr_schedulers()
        if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):  # a search for a rate has a schedule of its own
            return
        for group, peak, factor in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = peak * factor(schedule.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Put the configuration beside the weights."""
        checkpoint["excite_config"] = self.config.recorded()
