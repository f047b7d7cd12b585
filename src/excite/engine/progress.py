"""What training says while it runs: a bar on a terminal, and one line per epoch everywhere."""

import sys
import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from excite.engine.history import History


class ConsoleCallback(L.Callback):
    """Prints to the terminal or log; silent on all but the first process."""

    def __init__(self, history: History, epochs: int) -> None:
        self.history, self.epochs = history, epochs
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.said = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's bar."""
        if sys.stdout.isatty() and trainer.is_global_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(f"epoch {trainer.current_epoch + 1}", total=trainer.num_training_batches)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        """Move the bar; without a terminal say a line every half minute."""
        if self.bar:
            self.bar.advance(self.task)
        elif time.perf_counter() - self.said > 30 and trainer.is_global_zero:
            self.said = time.perf_counter()
            done, total = rest[2] + 1, trainer.num_training_batches
            self.console.print(f"epoch {trainer.current_epoch + 1}: batch {done} of {total}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's row."""
        self._stop()
        self.said = time.perf_counter()
        if trainer.is_global_zero:
            row = self.history.rows[-1]
            self.console.print(
                f"epoch {int(row['epoch']):>{len(str(self.epochs))}}/{self.epochs}  loss {row['train_loss']:.4f}  "
                f"val loss {row['val_loss']:.4f}  top-1 {100 * row['val_top1']:6.2f} %  lr {row['lr']:.2g}  "
                f"{row['images_per_s']:.0f} images/s  {row['seconds']:.1f} s"
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
