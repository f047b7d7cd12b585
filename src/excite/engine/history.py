"""One row of numbers per epoch: kept in the checkpoint, written as metrics.csv, drawn as curves.png."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning as L

from excite.common.files import write_text

COLUMNS = (
    "epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "seconds", "images_per_s", "waiting",
)  # fmt: skip

DRAW_EVERY = 20  # seconds between two drawings of the curves, which take half a second each


class History(L.Callback):
    """Collects a row per epoch. Rows travel in the checkpoint, so a resumed run rewrites the same file.

    seconds: training and validation; images_per_s: training images over training time; waiting: the share of training
    time in which the loop waited for data.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rows: list[dict[str, float]] = []
        self.started = self.trained = 0.0
        self.drawn = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = self.trained = time.perf_counter()
        trainer.train_dataloader.waited = 0.0  # type: ignore[union-attr]
        self.images = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        """Note when the last batch ended: validation comes after it."""
        self.images += len(rest[1][1]) * trainer.world_size
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row. The network's own numbers are read from its metrics: it logs them after the callbacks ran."""
        module: Any = pl_module
        module.check_losses()
        training = max(self.trained - self.started, 1e-9)
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "train_loss": float(module.train_loss.compute()),
                "train_top1": float(module.train_top1.compute()),
                "val_loss": float(module.val_loss.compute()),
                "val_top1": float(module.val_top1.compute()),
                "val_top5": float(module.val_top5.compute()),
                "seconds": round(time.perf_counter() - self.started, 3),
                "images_per_s": round(self.images / training, 1),
                "waiting": round(trainer.train_dataloader.waited / training, 4),  # type: ignore[union-attr]
            }
        )
        if trainer.is_global_zero:
            write_text(self.directory / "metrics.csv", to_csv(self.rows))
            if time.perf_counter() - self.drawn > DRAW_EVERY:
                self._draw()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the last epoch too."""
        if self.rows and trainer.is_global_zero:
            write_text(self.directory / "metrics.csv", to_csv(self.rows))
            self._draw()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave a picture of a run that stopped."""
        if self.rows and trainer.is_global_zero:
            self._draw()

    def _draw(self) -> None:
        draw_curves(self.rows, self.directory / "curves.png")
        self.drawn = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the interrupted run."""
        self.rows = list(state_dict["rows"])


def to_csv(rows: list[dict[str, float]]) -> str:
    """Return the rows as CSV with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    """Draw loss, top-1 and learning rate over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    loss, top1, lr = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    style = {"marker": "o", "markersize": 3} if len(rows) <= 40 else {}
    loss.plot(epochs, [row["train_loss"] for row in rows], label="training", **style)
    loss.plot(epochs, [row["val_loss"] for row in rows], label="validation", **style)
    loss.set_title("loss")
    loss.legend()
    top1.plot(epochs, [100 * row["train_top1"] for row in rows], label="training", **style)
    top1.plot(epochs, [100 * row["val_top1"] for row in rows], label="validation", **style)
    top1.set_title("top-1 (%)")
    top1.legend(loc="lower right")
    lr.plot(epochs, [row["lr"] for row in rows], color="tab:grey", **style)
    lr.set_title("learning rate (end of epoch)")
    for axes in (loss, top1, lr):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=100, format="png")
    temporary.replace(path)
