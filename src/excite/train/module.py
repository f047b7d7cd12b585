"""The LightningModule: a classifier, its loss, its metrics."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from excite.engine.optim import lr_factor, make_optimizer
from excite.engine.seeds import derive
from excite.errors import ExciteError
from excite.models import NetworkSpec
from excite.train.augment import mixer
from excite.train.config import TrainConfig

CHECK_EVERY = 20  # steps between looks at the loss on a GPU, where each look waits for the device


class NonFiniteLossError(ExciteError):
    """The loss became NaN or infinite."""

    def __init__(self, step: int, epoch: int, batch: int | None, kept: str) -> None:
        self.step, self.epoch, self.batch = step, epoch, batch
        where = "validation" if batch is None else f"batch {batch + 1}"
        super().__init__(
            f"the loss is not finite at step {step} (epoch {epoch + 1}, {where}); {kept}. "
            "Try a lower --lr, --clip 1, --warmup-epochs 5 or --precision 32"
        )


class Classifier(L.LightningModule):
    """A network that learns classes. Batches are (uint8 images [n c h w], labels [n])."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: TrainConfig, card: NetworkSpec) -> None:
        super().__init__()
        self.model, self.config, self.card = model, config, card
        how = card.preprocess or {}
        self.register_buffer("mean", torch.tensor(how["mean"]).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(how["std"]).view(1, -1, 1, 1) * 255, persistent=False)
        classes = card.num_classes
        self.mix = mixer(config, classes)
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))
        self.first_bad: tuple[int, int, int] | None = None
        self.unchecked: list[tuple[int, int, int, Tensor]] = []
        self.last_good = "no epoch was completed, so there is no checkpoint"

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n classes] of uint8 images [n 3 h w]."""
        x = (images.float() - self.mean) / self.std
        if self.config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.model(x)

    def on_train_epoch_start(self) -> None:
        """Seed this epoch, so that dropout too goes on alike after an interruption."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # type: ignore[union-attr]
        torch.manual_seed(derive(self.config.seed, self.current_epoch, 0, 0, 1))
        for metric in (self.train_loss, self.train_top1):
            metric.reset()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of one batch. Raises NonFiniteLossError."""
        images, labels = batch
        targets = labels
        if self.mix is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(self.config.seed, self.current_epoch, self.global_rank, index, 2))
                # Mixed as floats: in uint8 the sum of two weighted images would lose its fractions.
                images, targets = self.mix(images.float(), labels)
        logits = self(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.config.label_smoothing)
        self._watch(loss.detach(), index)
        self.train_loss.update(loss.detach(), weight=len(labels))
        self.train_top1.update(logits.detach(), labels)
        return loss

    def _watch(self, loss: Tensor, index: int) -> None:
        self.unchecked.append((self.global_step, self.current_epoch, index, loss))
        if loss.device.type != "cuda" or len(self.unchecked) >= CHECK_EVERY:
            self.check_losses()

    def check_losses(self) -> None:
        """Raise NonFiniteLossError for the first loss since the last look that is not finite."""
        pending, self.unchecked = self.unchecked, []
        if not pending or torch.isfinite(torch.stack([loss for *_, loss in pending])).all():
            return
        step, epoch, index, _ = next(item for item in pending if not torch.isfinite(item[3]))
        raise NonFiniteLossError(step, epoch, index, self.last_good)

    def on_train_epoch_end(self) -> None:
        """Look at the losses not yet looked at, before a checkpoint is written."""
        self.check_losses()
        self.log("train/loss", self.train_loss.compute())
        self.log("train/top1", self.train_top1.compute())
        self.log("lr", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]

    def on_validation_epoch_start(self) -> None:
        """Start the metrics anew."""
        for metric in (self.val_loss, self.val_top1, self.val_top5):
            metric.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Add one batch to the validation metrics."""
        images, labels = batch
        logits = self(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels), weight=len(labels))
        self.val_top1.update(logits, labels)
        self.val_top5.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics. Raises NonFiniteLossError, so that a network gone bad is not saved."""
        loss = self.val_loss.compute()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self.global_step, self.current_epoch, None, self.last_good)
        self.log("val/loss", loss)
        self.log("val/top1", self.val_top1.compute())
        self.log("val/top5", self.val_top5.compute())

    def configure_optimizers(self) -> Any:
        """Return the optimizer and a schedule that moves every step."""
        optimizer = make_optimizer(self.model, self.config)
        steps = max(self.trainer.estimated_stepping_batches / self.config.epochs, 1)
        factor = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(self.config, step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the card and the configuration beside the weights: enough to build and feed the network again."""
        checkpoint["excite"] = self.card.to_dict()
        checkpoint["excite_config"] = self.config.to_dict()
