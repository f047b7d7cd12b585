"""`--lr find`: a learning rate from a short trial, by Lightning's finder."""

import contextlib
import copy
import io
import tempfile
from dataclasses import replace

import lightning as L
import torch
from lightning.pytorch.tuner.tuning import Tuner
from torch import nn

from excite.engine.trainer import PRECISIONS
from excite.errors import ExciteError
from excite.models import NetworkSpec
from excite.runtime import pick_device
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData
from excite.train.losses import Loss
from excite.train.module import Classifier

STEPS = 100
WARM = 10  # steps that are not looked at
LOWEST, HIGHEST = 1e-6, 10.0


class Trial(Classifier):
    """A classifier that may diverge."""

    def check_losses(self) -> None:
        """Look at none: the trial ends where the loss explodes."""
        self.unchecked = []


def find_lr(model: nn.Module, config: TrainConfig, card: NetworkSpec, data: ImageData, loss: Loss | None) -> float:
    """Return the learning rate at which the loss of a copy of the network fell most steeply, in two digits.

    The rate rises from 1e-6 to 10 in 100 steps (Smith, WACV 2017), the same for all parameters; nothing is held.
    Raises ExciteError where the loss does not fall.
    """
    # A number to start with: the finder replaces it. What waits for an epoch or is said once is left out.
    settings = replace(config, lr=LOWEST, freeze_backbone_epochs=0, backbone_lr_factor=1.0, layer_decay=1.0, quiet=True)
    trial = Trial(copy.deepcopy(model), settings, card, loss=loss)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # its bar
        trainer = L.Trainer(
            accelerator="gpu" if pick_device(config.device) == "cuda" else "cpu",
            devices=1,
            precision=PRECISIONS[config.precision],
            max_epochs=STEPS * config.accumulate,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip or None,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        found = Tuner(trainer).lr_find(
            trial,
            train_dataloaders=data.train_dataloader(),
            min_lr=LOWEST,
            max_lr=HIGHEST,
            num_training=STEPS,
            update_attr=False,
        )
    rate = None if found is None else steepest(found.results["lr"], found.results["loss"])
    if rate is None:
        raise ExciteError(f"--lr find: no learning rate lowers the loss within {STEPS} steps; give --lr a number")
    return float(f"{rate:.2g}")


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """Return the rate at which smoothed losses fall most steeply over the logarithm of the rate, before their least.

    None where they do not fall. The finder's own suggestion divides by the step of the rate itself, so that the
    smallest rates look steepest.
    """
    count = min(len(rates), len(losses))
    loss = torch.tensor(losses[:count])
    rate = torch.tensor(rates[:count])
    usable = torch.isfinite(loss)
    usable[:WARM] = False  # averages of few losses
    loss, rate = loss[usable], rate[usable].log()
    end = int(loss.argmin()) + 1 if len(loss) else 0
    if end < 3:
        return None
    slope = torch.gradient(loss[:end], spacing=[rate[:end]])[0]
    best = int(slope.argmin())
    return float(rate[best].exp()) if slope[best] < 0 else None
