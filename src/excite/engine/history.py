"""One row of numbers per epoch: kept in the checkpoint, written as metrics.csv, drawn as curves.png."""

import time
from pathlib import Path
from typing import Any

import lightning as L

from excite.common.checks import shown
from excite.common.files import write_text
from excite.common.plotting import save
from excite.common.tables import csv_text
from excite.engine.module import Panel, Row, RunModule
from excite.engine.run import RunDirectory

# Any: what Lightning stores, and styles that matplotlib takes.

DRAW_EVERY = 20  # seconds between two drawings of the curves, which take half a second each


class History(L.Callback):
    """Collects a row per epoch. Rows travel in the checkpoint, so a resumed run rewrites the same file.

    seconds: training and validation; images_per_s: training images over training time; waiting: the share of training
    time in which the loop waited for data, where the loader counts it (`waited`).
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.rows: list[Row] = []
        self.started = self.trained = 0.0
        self.drawn = time.perf_counter()
        self.images = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of an epoch that a run goes on inside."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = self.trained = time.perf_counter()
        loader = trainer.train_dataloader
        if loader is not None and hasattr(loader, "waited"):
            loader.waited = 0.0
        self.images = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Note when the last batch ended: validation comes after it."""
        assert isinstance(pl_module, RunModule)
        self.images += pl_module.count(batch) * trainer.world_size
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row. The module's numbers are read from it: what it logs comes after the callbacks."""
        assert isinstance(pl_module, RunModule)
        pl_module.check_losses()
        training = max(self.trained - self.started, 1e-9)
        row: Row = {"epoch": trainer.current_epoch + 1, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= pl_module.epoch_row() | pl_module.guarded_row()
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        row["images_per_s"] = round(self.images / training, 2)
        waited = getattr(trainer.train_dataloader, "waited", None)
        if waited is not None:
            row["waiting"] = round(waited / training, 4)
        self.rows.append(row)
        if trainer.is_global_zero:
            write_text(self.directory.path / "metrics.csv", csv_text(self.rows))
            if time.perf_counter() - self.drawn > DRAW_EVERY:
                self._draw(pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the last epoch too; a run that ended before it did so has no training left to end."""
        if self.rows and trainer.is_global_zero:
            write_text(self.directory.path / "metrics.csv", csv_text(self.rows))
            self._draw(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave a picture of a run that stopped."""
        if self.rows and trainer.is_global_zero:
            self._draw(pl_module)

    def _draw(self, module: L.LightningModule) -> None:
        assert isinstance(module, RunModule)
        draw_curves(self.rows, module.panels(self.rows), self.directory.path / "curves.png")
        self.drawn = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the interrupted run. Raises ValueError for what are no rows.

        The first one is of a later epoch where the run went on with another script's training.
        """
        rows = state_dict["rows"]
        first = rows[0].get("epoch") if rows else 1
        for number, row in enumerate(rows, start=1):
            numbers = [isinstance(v, int | float) for v in row.values()]
            if (
                not all(numbers)
                or not row.keys() >= {"epoch", "lr", "seconds"}
                or row["epoch"] != first + number - 1
                or first < 1
            ):
                raise ValueError(f"row {number} of its history is {shown(row)}")
        self.rows = list(rows)


def draw_curves(rows: list[Row], panels: list[Panel], path: Path) -> None:
    """Draw the panels and the learning rate over the epochs."""
    from matplotlib.figure import Figure

    panels = [*panels, Panel("learning rate (end of epoch)", {"": "lr"})]
    figure = Figure(figsize=(3.5 * len(panels), 3.4), layout="constrained")
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(rows) <= 40 else {}
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for label, column in panel.columns.items():
            points = [(row["epoch"], panel.factor * row[column]) for row in rows if column in row]
            colour = {} if label else {"color": "tab:grey"}
            axes.plot(*zip(*points, strict=True), label=label, **style, **colour)
        axes.set_title(panel.title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(panel.columns) > 1:
            axes.legend(fontsize=8)
    save(figure, path)
