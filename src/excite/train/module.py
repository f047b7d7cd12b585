"""The LightningModule: a classifier, its loss, its metrics."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from excite.data.bundle import WORDS, HeldOut
from excite.data.preprocess import Preprocess
from excite.engine.module import NonFiniteLossError, Panel, Row, RunModule
from excite.engine.seeds import derive
from excite.models import NetworkSpec
from excite.train.augment import mixer
from excite.train.config import TrainConfig
from excite.train.loaders import Loader


class Classifier(RunModule):
    """A network that learns classes. Batches are (uint8 images [n c h w], labels [n]).

    watched: the split that is validated on; selects: whether the best epoch on it is the run's result, or the last one.
    """

    config: TrainConfig
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        card: NetworkSpec,
        watched: HeldOut = "val",
        *,
        selects: bool = False,
    ) -> None:
        super().__init__(model, config)
        self.watched, self.selects = watched, selects
        self.model, self.card = model, card
        mean, std = Preprocess.of(card).statistics()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        classes = card.num_classes
        self.mix = mixer(config, classes)
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n classes] of uint8 images [n 3 h w]."""
        x = (images.float() - self.mean) / self.std
        if self.config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.model(x)

    def on_train_epoch_start(self) -> None:
        """Seed this epoch, so that dropout too goes on alike after an interruption."""
        loader = self.trainer.train_dataloader
        assert isinstance(loader, Loader)
        loader.set_epoch(self.current_epoch)
        torch.manual_seed(derive("dropout", self.config.seed, self.current_epoch))
        for metric in (self.train_loss, self.train_top1):
            metric.reset()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of one batch. Raises NonFiniteLossError."""
        images, labels = batch
        targets = labels
        if self.mix is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive("mixing", self.config.seed, self.current_epoch, self.global_rank, index))
                # Mixed as floats: in uint8 the sum of two weighted images would lose its fractions.
                images, targets = self.mix(images.float(), labels)
        logits = self(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.config.label_smoothing)
        self.watch(loss.detach(), index)
        self.train_loss.update(loss.detach(), weight=len(labels))
        self.train_top1.update(logits.detach(), labels)
        return loss

    def on_train_epoch_end(self) -> None:
        """Look at the losses not yet looked at, before a checkpoint is written."""
        self.check_losses()
        self.log("train/loss", self.train_loss.compute())
        self.log("train/top1", self.train_top1.compute())
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

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
            raise NonFiniteLossError(self.global_step, self.current_epoch, None, "", self.last_good)
        self.log("val/loss", loss)
        self.log("val/top1", self.val_top1.compute())
        self.log("val/top5", self.val_top5.compute())

    def epoch_row(self) -> Row:
        """Return loss and accuracy in training and validation."""
        return {
            "train_loss": float(self.train_loss.compute()),
            "train_top1": float(self.train_top1.compute()),
            "val_loss": float(self.val_loss.compute()),
            "val_top1": float(self.val_top1.compute()),
            "val_top5": float(self.val_top5.compute()),
        }

    def describe(self, row: Row) -> str:
        """Return losses and top-1."""
        top1 = f"top-1 {100 * row['val_top1']:6.2f} %"
        return f"loss {row['train_loss']:.4f}  {self.watched} loss {row['val_loss']:.4f}  {top1}"

    def score(self, row: Row) -> float | None:
        """Return the validation top-1."""
        return row["val_top1"]

    def panels(self, rows: list[Row]) -> list[Panel]:
        """Return loss and top-1."""
        result = max(rows, key=lambda row: row["val_top1"]) if self.selects else rows[-1]
        which = "best" if self.selects else "last"
        title = f"top-1 (%): {100 * result['val_top1']:.2f} at the {which} epoch, {int(result['epoch'])}"
        watched = WORDS[self.watched]
        return [
            Panel("loss", {"training": "train_loss", watched: "val_loss"}),
            Panel(title, {"training": "train_top1", watched: "val_top1"}, 100),
        ]

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        """Return the number of images in a batch."""
        return len(batch[1])

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Put the card and the configuration beside the weights: enough to build and feed the network again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["excite"] = self.card.to_dict()
