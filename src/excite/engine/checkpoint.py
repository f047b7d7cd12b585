"""Checkpoints of a run: `last.ckpt` after every epoch, `best.ckpt` when the validation top-1 rose."""

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from excite.engine.history import History


class Keeper(Checkpoint):
    """Writes both files atomically, after all other callbacks have put their part into the state.

    Lightning's ModelCheckpoint writes its `last` only when there is a new best, and once more at the end of training,
    when averaged weights have replaced the trained ones; a run could not be continued from that.
    """

    def __init__(self, directory: Path, history: History) -> None:
        self.directory, self.history = directory, history

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write last.ckpt, and copy it to best.ckpt if this epoch is the best so far."""
        last = self.directory / "last.ckpt"
        trainer.save_checkpoint(last)
        scores = [row["val_top1"] for row in self.history.rows]
        if trainer.is_global_zero and all(scores[-1] > score for score in scores[:-1]):
            temporary = self.directory / ".best.ckpt"
            shutil.copyfile(last, temporary)
            os.replace(temporary, self.directory / "best.ckpt")
        self._remember(pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Know the checkpoints of the run that is resumed."""
        if self.history.rows:
            self._remember(pl_module)

    def _remember(self, module: Any) -> None:
        module.last_good = f"kept: {self.directory / 'last.ckpt'}, written after epoch {len(self.history.rows)}"
