"""What happens around the steps: rows of numbers, averaged weights, checkpoints, words on the terminal."""

import shutil
import sys
import time
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, WeightAveraging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from excite.common.files import replacing
from excite.engine.config import RunConfig, interval
from excite.engine.history import History
from excite.engine.module import SCORE, RunModule
from excite.engine.run import RunDirectory
from excite.engine.sharding import whole

SHOW_EVERY = 0.1  # seconds between two movements of the bar
SPEAK_EVERY = 30  # seconds between two lines in a long epoch that is not watched on a terminal


class DirectoryCallback(L.Callback):
    """Tells all processes of a run its directory, as soon as they can talk to each other."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take over the first process's directory."""
        self.directory.share(trainer.strategy.broadcast)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that all of a resumed run has been read."""
        self.directory.under_way = True


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints as all other files are; Lightning moves its own in from a temporary folder, in parts."""

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint whole or not at all; the bytes do not depend on the temporary name."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class CheckpointCallback(Checkpoint):
    """Writes `last.ckpt` after every epoch and `best.ckpt` when the score rose, after all other callbacks have run.

    `step.ckpt` comes in between, where the configuration asks for it, and goes once `last.ckpt` is newer.

    A process may end between the two. `last.ckpt` carries the history, which says what the best epoch is: a resumed run
    writes `best.ckpt` anew where that is the last one.

    Lightning's ModelCheckpoint writes its `last` only when there is a new best, and once more at the end of training,
    when averaged weights have replaced the trained ones; a run could not be continued from that.
    """

    def __init__(self, directory: RunDirectory, history: History, config: RunConfig) -> None:
        self.directory, self.history = directory, history
        self.every = interval(config.checkpoint_every) if config.checkpoint_every else None
        self.accumulate = config.accumulate
        self.written = time.monotonic()

    @property
    def last(self) -> Path:
        """The file written after every epoch."""
        return self.directory.last

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write step.ckpt where it is time to; not after the last batch, nor between the batches of a step."""
        assert isinstance(pl_module, RunModule)
        done = batch_idx + 1
        if self.every is None or done == trainer.num_training_batches or done % self.accumulate:
            return
        if self.every.steps is not None:
            due = trainer.global_step % self.every.steps == 0
        else:  # the first process's clock is everybody's
            due = time.monotonic() - self.written >= (self.every.seconds or 0)
            due = trainer.strategy.reduce_boolean_decision(due and trainer.is_global_zero, all=False)
        if not due:
            return
        pl_module.check_losses()
        norm = whole(torch.nn.utils.get_total_norm([p.detach() for p in pl_module.parameters()]))
        if not torch.isfinite(norm):  # the next loss will say so
            return
        pl_module.within = True
        try:
            trainer.save_checkpoint(self.directory.step)
        finally:
            pl_module.within = False
        self.written = time.monotonic()
        at = f"kept: {self.directory.step}, written after batch {done} of epoch {trainer.current_epoch + 1}"
        pl_module.last_good = at

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write last.ckpt, and copy it to best.ckpt if this epoch is the best so far."""
        assert isinstance(pl_module, RunModule)
        trainer.save_checkpoint(self.last)
        self.written = time.monotonic()
        if trainer.is_global_zero:
            self.directory.step.unlink(missing_ok=True)
        self._keep_best(trainer, pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Know the checkpoints of the run that is resumed, and complete them."""
        assert isinstance(pl_module, RunModule)
        if self.history.rows:
            self._keep_best(trainer, pl_module)

    def _keep_best(self, trainer: L.Trainer, module: RunModule) -> None:
        *earlier, now = [module.score(row) for row in self.history.rows]
        if trainer.is_global_zero and now is not None and all(score is None or now > score for score in earlier):
            with replacing(self.last.with_name("best.ckpt")) as temporary:
                shutil.copyfile(self.last, temporary)
        module.last_good = f"kept: {self.last}, written after epoch {int(self.history.rows[-1]['epoch'])}"


class StopCallback(EarlyStopping):
    """Stops a run after `patience` validations in a row without a better score.

    What it counts follows from the history's rows, so that a resumed run counts on, with the patience it has now.
    """

    def __init__(self, history: History, patience: int) -> None:
        super().__init__(SCORE, patience=patience, mode="max", check_finite=False)
        self.history = history

    def state_dict(self) -> dict[str, object]:
        """Return nothing: all of it follows from the rows."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Keep the patience of now."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the validations of a resumed run; one that had stopped has nothing left to do."""
        assert isinstance(pl_module, RunModule)
        scores = [score for score in map(pl_module.score, self.history.rows) if score is not None]
        if scores:
            self.best_score = torch.tensor(max(scores))
            self.wait_count = len(scores) - 1 - scores.index(max(scores))
        trainer.should_stop = self.wait_count >= self.patience


class ConsoleCallback(L.Callback):
    """Prints a bar on a terminal and one line per epoch everywhere; silent on all but the first process."""

    def __init__(self, history: History, config: RunConfig) -> None:
        self.history, self.epochs, self.patience = history, config.epochs, config.patience
        self.console = Console(highlight=False, soft_wrap=True, markup=False)
        self.bar: Progress | None = None
        self.began = self.spoke = time.perf_counter()
        self.first_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the run."""
        self.began, self.first_epoch = time.perf_counter(), trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's bar."""
        if sys.stdout.isatty() and trainer.is_global_zero:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self._where(trainer), total=trainer.num_training_batches, left="")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Move the bar; without a terminal print a line every half minute."""
        assert isinstance(pl_module, RunModule)
        now = time.perf_counter()
        if not trainer.is_global_zero or now - self.spoke < (SHOW_EVERY if self.bar else SPEAK_EVERY):
            return
        self.spoke = now
        batches = float(trainer.num_training_batches)
        done = (trainer.current_epoch - self.first_epoch) * batches + batch_idx + 1
        whole = (self.epochs - self.first_epoch) * batches
        left = f"{duration((now - self.began) / done * (whole - done))} left"
        loss = "" if pl_module.loss is None else f"  loss {float(pl_module.loss):.3f}"
        where = self._where(trainer)
        if self.bar:
            self.bar.update(self.task, completed=batch_idx + 1, description=f"{where}{loss}", left=left)
        else:
            self.console.print(f"{where}  batch {batch_idx + 1} of {trainer.num_training_batches}{loss}  {left}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's row."""
        assert isinstance(pl_module, RunModule)
        self._stop()
        self.spoke = time.perf_counter()
        if trainer.is_global_zero:
            row = self.history.rows[-1]
            self.console.print(
                f"epoch {int(row['epoch']):>{len(str(self.epochs))}}/{self.epochs}  {pl_module.describe(row)}  "
                f"lr {row['lr']:.2g}  {row['images_per_s']:.{0 if row['images_per_s'] >= 100 else 1}f} images/s  "
                f"{row['seconds']:.1f} s"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that the run stopped early."""
        if trainer.should_stop and trainer.is_global_zero and len(self.history.rows) < self.epochs:
            self.console.print(
                f"stopped after epoch {len(self.history.rows)} of {self.epochs}: no better score for {self.patience} "
                f"validation{'s' * (self.patience > 1)}; a larger --patience goes on"
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self._stop()

    def _where(self, trainer: L.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1}/{self.epochs}"

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


def duration(seconds: float) -> str:
    """Return a time in words: 45 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def averaging(decay: float) -> WeightAveraging:
    """Return the callback: after each optimizer step, average = d * average + (1 - d) * weights.

    d = min(decay, (1 + t) / (10 + t)) at step t, so that a short run's average does not stay at its random start.
    Validation, checkpoints (`state_dict`) and the final network hold the average.
    """

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        step = int(count)
        now = min(decay, (1 + step) / (10 + step))
        mean = now * averaged + (1 - now) * current
        return torch.where(averaged == current, current, mean)  # what does not learn stays as it is, to the last bit

    return WeightAveraging(avg_fn=average)
