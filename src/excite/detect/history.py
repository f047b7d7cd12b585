"""One row of numbers per epoch: kept in the checkpoint, written as metrics.csv, drawn as curves.png, said aloud."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning as L

from excite.common.files import write_text

Row = dict[str, float]


class History(L.Callback):
    """Collects a row per epoch: losses, AP, learning rate, seconds. Rows travel in the checkpoint.

    quiet: print no line per epoch.
    """

    def __init__(self, directory: Path, epochs: int, *, quiet: bool = False) -> None:
        self.directory, self.epochs, self.quiet = directory, epochs, quiet
        self.rows: list[Row] = []
        self.started = self.trained = self.said = time.perf_counter()
        self.images = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = self.trained = time.perf_counter()
        self.images = 0
        pl_module.metrics = {}  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        """Count; in a long epoch say every half minute how far it is."""
        self.images += len(rest[1][0]) * trainer.world_size
        self.trained = time.perf_counter()
        if self.trained - self.said > 30:
            self.said = self.trained
            loss = pl_module.losses["loss"]  # type: ignore[index]
            done = f"batch {rest[2] + 1} of {trainer.num_training_batches}"
            self._say(trainer, f"epoch {trainer.current_epoch + 1}/{self.epochs}: {done}, loss {loss:.3f}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row."""
        module: Any = pl_module
        seconds = max(self.trained - self.started, 1e-9)
        row: Row = {"epoch": trainer.current_epoch + 1, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= module.losses
        for kind, values in module.metrics.items():
            row |= {f"{kind}_{name}": values[name] for name in ("AP", "AP50", "AP75")}
        row["seconds"] = round(time.perf_counter() - self.started, 2)
        row["images_per_s"] = round(self.images / seconds, 2)
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        write_text(self.directory / "metrics.csv", to_csv(self.rows))
        draw_curves(self.rows, self.directory / "curves.png")
        scores = "  ".join(
            f"{k.replace('_', ' ')} {100 * v:5.1f}" for k, v in row.items() if k.endswith(("AP", "AP50"))
        )
        text = f"epoch {int(row['epoch']):>{len(str(self.epochs))}}/{self.epochs}  loss {row['loss']:.3f}  {scores}"
        self._say(trainer, f"{text}  lr {row['lr']:.2g}  {row['images_per_s']:.1f} images/s  {row['seconds']:.0f} s")

    def _say(self, trainer: L.Trainer, text: str) -> None:
        self.said = time.perf_counter()
        if not self.quiet and trainer.is_global_zero:
            print(text, flush=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the interrupted run."""
        self.rows = list(state_dict["rows"])


def to_csv(rows: list[Row]) -> str:
    """Return the rows as CSV with a header; epochs without an evaluation leave its columns empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def draw_curves(rows: list[Row], path: Path) -> None:
    """Draw the losses, AP and learning rate over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, scores, lr = figure.subplots(1, 3)
    rest = ("epoch", "lr", "seconds", "images_per_s")
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(rows) <= 40 else {}
    for name in dict.fromkeys(k for row in rows for k in row if k not in rest):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes, factor = (scores, 100) if "AP" in name else (losses, 1)
        axes.plot([e for e, _ in points], [factor * v for _, v in points], label=name.replace("_", " "), **style)
    losses.set_title("training losses")
    scores.set_title("validation AP (%)")
    scores.set_ylim(0, 100)
    lr.plot([row["epoch"] for row in rows], [row["lr"] for row in rows], color="tab:grey", **style)
    lr.set_title("learning rate (end of epoch)")
    for axes in (losses, scores, lr):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines and axes is not lr:
            axes.legend(fontsize=8)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=100, format="png")
    temporary.replace(path)
