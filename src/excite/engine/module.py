"""What the Lightning modules of all runs share: optimizer and schedule, the watch on the loss, what is recorded."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from excite.engine.config import RunConfig
from excite.engine.optim import lr_factor, make_optimizer
from excite.errors import ExciteError

# Any: batches and what a checkpoint holds are of many kinds.

CHECK_EVERY = 20  # steps between looks at the loss on a GPU, where each look waits for the device

Row = dict[str, float]
Part = TypeVar("Part")
INSIDE = "excite_inside_epoch"  # in a checkpoint that was written inside an epoch

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
        self.lost = False  # the loss of this step is not finite, and the step is to be skipped
        self.skipped = 0  # steps of this epoch
        self.norms: list[Tensor] = []  # of the gradient, of the steps of this epoch
        self.culprit: Callable[[], str] = str  # says which layer was not finite first, where somebody looks
        self.last_good = "no epoch was completed, so there is no checkpoint"
        self.within = False  # an epoch: while a checkpoint is written there
        self.inside: list[dict[str, Any]] = []  # what it holds, of each process
        self.earlier: tuple[int, Mapping[str, Mapping[str, Tensor]]] = (0, {})

    @property
    def network(self) -> nn.Module:
        """The network that learns."""
        return self._network[0]

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

    def watch(self, loss: Tensor, batch: int, parts: Mapping[str, Tensor] | None = None) -> bool:
        """Note the detached loss of a step (and its parts); return whether the step counts.

        Raises NonFiniteLossError, on a GPU some steps later, unless such steps are skipped.
        """
        if self.config.non_finite == "skip":
            self.lost = not torch.isfinite(loss)
            self.loss = self.loss if self.lost else loss
            return not self.lost
        self.loss = loss
        self.unchecked.append(Step(self.global_step, self.current_epoch, batch, loss, parts or {}))
        if loss.device.type != "cuda" or len(self.unchecked) >= CHECK_EVERY or self.config.trace_non_finite:
            self.check_losses()
        return True

    def check_losses(self) -> None:
        """Raise NonFiniteLossError for the first loss since the last look that is not finite."""
        pending, self.unchecked = self.unchecked, []
        if not pending or torch.isfinite(torch.stack([step.loss for step in pending])).all():
            return
        bad = next(step for step in pending if not torch.isfinite(step.loss))
        parts = "".join(f", {name} {float(value):.3g}" for name, value in bad.parts.items()) + self.culprit()
        raise NonFiniteLossError(bad.step, bad.epoch, bad.batch, parts, self.last_good)

    # Inside an epoch: what a checkpoint needs beside weights, optimizer and averages for a run to go on there.

    def epoch_sums(self) -> dict[str, Tensor]:
        """Return what this epoch's training numbers are computed of, of this process: sums over its images or steps."""
        raise NotImplementedError

    def go_on_with(self, sums: dict[str, Tensor]) -> None:
        """Take over such sums."""
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        """Start with the first batch."""
        self.skipped, self.norms = 0, []
        loader = self.trainer.train_dataloader
        if loader is not None and hasattr(loader, "first"):
            loader.first = 0

    def guarded_row(self) -> Row:
        """Return the mean norm of the epoch's gradients and the number of steps that were skipped, where asked for."""
        row: Row = {"skipped": self.skipped} if self.config.non_finite == "skip" else {}
        if self.config.grad_norm and self.norms:
            row["grad_norm"] = float(torch.stack(self.norms).mean())
        return row

    def _go_on_inside(self) -> None:
        """Stand where a checkpoint inside an epoch was written: next batch, random numbers, sums."""
        self.on_train_epoch_start()
        loader = self.trainer.train_dataloader
        assert loader is not None
        loader.first = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        parts, rank = self.inside, self.global_rank
        if len(parts) == self.trainer.world_size:  # else nobody has a place of its own in the random numbers
            torch.set_rng_state(parts[rank]["random"].cpu())
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(parts[rank]["random on GPU"].cpu(), self.device)
        self.skipped, self.norms = int(parts[0]["skipped"]), list(parts[0]["norms"].to(self.device))
        total = {
            name: torch.stack([part["sums"][name].cpu() for part in parts]).sum(0).to(self.device)
            for name in parts[0]["sums"]
        }
        self.go_on_with(total if rank == 0 else {name: torch.zeros_like(value) for name, value in total.items()})

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
        """Set the learning rate of the step to come: of a resumed run it follows the schedule of its new length.

        A run that is resumed inside an epoch takes its place there.
        """
        if self.trainer.fit_loop.restarted_mid_epoch:
            self._go_on_inside()
        schedule = self.lr_schedulers()
        if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):  # a search for a rate has a schedule of its own
            return
        for group, peak, factor in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = peak * factor(schedule.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Put the configuration beside the weights, inside an epoch also what `_go_on_inside` takes."""
        checkpoint["excite_config"] = self.config.recorded()
        if self.within:
            own: dict[str, Any] = {"random": torch.get_rng_state(), "sums": self.epoch_sums(), "skipped": self.skipped}
            own["norms"] = torch.stack(self.norms).cpu() if self.norms else torch.empty(0)
            if self.device.type == "cuda":
                own["random on GPU"] = torch.cuda.get_rng_state(self.device)
            checkpoint[INSIDE] = gather([own])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `_go_on_inside` takes."""
        self.inside = checkpoint.get(INSIDE, [])


def gather(own: list[Part]) -> list[Part]:
    """Return the entries of all processes, in the order of these."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[list[Part]] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return [entry for part in parts for entry in part]
