"""The LightningModule: a classifier, its loss, its metrics."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from excite.data.bundle import WORDS, HeldOut
from excite.data.preprocess import Preprocess, luma
from excite.engine.module import SCORE, NonFiniteLossError, Panel, Row, RunModule
from excite.engine.seeds import derive
from excite.engine.sharding import check_shardable, shard, share_buffers
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.train.augment import mixer
from excite.train.config import TrainConfig
from excite.train.finetune import hold_norms, lr_factors, parts_of, say_rates
from excite.train.loaders import Loader
from excite.train.losses import ClassificationLoss, Loss
from excite.train.scores import balanced_accuracy, macro_f1

SCORES = {"macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy"}  # scores that an epoch's line adds


class Classifier(RunModule):
    """A network that learns classes. Batches are (uint8 images [n c h w], labels [n]).

    watched: the split that is validated on; selects: whether the best epoch on it is the run's result, or the last one.
    loss: of logits and labels (or shares, where images are mixed), instead of the configuration's; metrics: more of
    them for the validation, each with one number as its result, by the name of its column in metrics.csv (`val_NAME`).
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
        loss: Loss | None = None,
        metrics: Mapping[str, Metric] = MappingProxyType({}),
    ) -> None:
        super().__init__(model, config)
        self.watched, self.selects = watched, selects
        self.model, self.card = model, card
        preprocess = Preprocess.of(card)
        mean, std = preprocess.statistics()
        self.luma = preprocess.channels == 1
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        classes = card.num_classes
        self.mix = mixer(config, classes)
        # In a tuple: a module of the caller's own must not put its entries into the checkpoint.
        self._criterion = (loss or ClassificationLoss(config),)
        self.own_loss = config.loss == "own"
        self.waiting: tuple[nn.Parameter, ...] = ()
        if config.freeze_backbone_epochs or config.backbone_lr_factor != 1 or config.layer_decay != 1:
            parts = parts_of(model, classes)
            self.lr_factors = lr_factors(parts, config)
            self.waiting = tuple(p for p in parts.backbone.values() if p.requires_grad)
            learning = [*parts.head.values(), *parts.attention.values()]
            if config.freeze_backbone_epochs and not any(p.requires_grad for p in learning):
                raise UsageError(
                    "--freeze holds the classifier and the attention, --freeze-backbone-epochs all else: nothing learns"
                )
            if not config.quiet:
                print(say_rates(parts, config, self.lr_factors))
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))
        self.val_confusion = MulticlassConfusionMatrix(classes)
        self.more_metrics = nn.ModuleDict(dict(metrics))
        if config.strategy == "fsdp":
            check_shardable(model)
            # No method: averaged weights of other runs would take it amiss.
            self.configure_model = lambda: shard(self, self.device_mesh["data_parallel"])  # type: ignore[method-assign,index]  # a mesh by then

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n classes] of uint8 images [n 3 h w]."""
        values = images.float()
        x = ((luma(values) if self.luma else values) - self.mean) / self.std
        if self.config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.model(x)

    def on_fit_start(self) -> None:
        """Take the loss where the network is."""
        criterion = self._criterion[0]
        if isinstance(criterion, nn.Module):
            criterion.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Seed this epoch, so that dropout too goes on alike after an interruption; hold what does not learn in it."""
        for parameter in self.waiting:
            parameter.requires_grad_(self.current_epoch >= self.config.freeze_backbone_epochs)
        hold_norms(self.model)
        loader = self.trainer.train_dataloader
        assert isinstance(loader, Loader)
        loader.set_epoch(self.current_epoch)
        torch.manual_seed(derive("dropout", self.config.seed, self.current_epoch, self.global_rank))
        super().on_train_epoch_start()
        for metric in (self.train_loss, self.train_top1):
            metric.reset()

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Begin with the same norms in all processes."""
        self._share_norms()

    def _share_norms(self) -> None:
        """Give all processes one state of the norms; in other runs DistributedDataParallel does."""
        if self.config.strategy == "fsdp" and not self.config.sync_bn:
            share_buffers(self.model)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor | None:
        """Return the loss of one batch, None where no image of it could be read. Raises NonFiniteLossError."""
        images, labels = batch
        if not len(labels):
            return None
        targets = labels
        if self.mix is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive("mixing", self.config.seed, self.current_epoch, self.global_rank, index))
                # Mixed as floats: in uint8 the sum of two weighted images would lose its fractions.
                images, targets = self.mix(images.float(), labels)
        logits = self(images)
        loss = self.criterion(logits, targets)
        if self.watch(loss.detach(), index):
            self.train_loss.update(loss.detach(), weight=len(labels))
            self.train_top1.update(logits.detach(), labels)
        return loss

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits [n c] and labels [n] or shares [n c]. Raises UsageError where it is no number."""
        loss = self._criterion[0](logits, targets)
        if self.own_loss and not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point()):
            kind = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UsageError(f"the loss gives {kind}; a single number is needed, as the mean over the batch")
        return loss

    def on_train_epoch_end(self) -> None:
        """Look at the losses not yet looked at, before a checkpoint is written."""
        self.check_losses()
        self.log("train/loss", self.train_loss.compute())
        self.log("train/top1", self.train_top1.compute())
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_start(self) -> None:
        """Start the metrics anew."""
        self._share_norms()
        for metric in (*self.scores, *self.own_metrics.values()):
            metric.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Add one batch to the validation metrics."""
        images, labels = batch
        if not len(labels):
            return
        logits = self(images).float()
        loss = self.criterion(logits, labels) if self.own_loss else F.cross_entropy(logits, labels)
        self.val_loss.update(loss, weight=len(labels))
        for metric in (*self.scores[1:], *self.own_metrics.values()):
            metric.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics. Raises NonFiniteLossError, so that a network gone bad is not saved."""
        loss = self.val_loss.compute()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self.global_step, self.current_epoch, None, "", self.last_good)
        row = self.validation()
        for name, value in row.items():
            self.log(name.replace("_", "/", 1), value)
        score = self.score(row)
        assert score is not None
        self.log(SCORE, score, logger=False)

    @property
    def scores(self) -> tuple[Metric, ...]:
        """The metrics of the validation, the loss first."""
        return self.val_loss, self.val_top1, self.val_top5, self.val_confusion

    @property
    def own_metrics(self) -> dict[str, Metric]:
        """The caller's metrics by name."""
        return dict(self.more_metrics.items())  # type: ignore[arg-type]  # what was put there are metrics

    def validation(self) -> Row:
        """Return what the validation gave. Raises UsageError for an own metric that gives no number."""
        loss, top1, top5, confusion = (metric.compute() for metric in self.scores)
        row = {"val_loss": float(loss), "val_top1": float(top1), "val_top5": float(top5)}
        row |= {"val_macro_f1": macro_f1(confusion), "val_balanced_accuracy": balanced_accuracy(confusion)}
        for name, metric in self.own_metrics.items():
            value = metric.compute()
            try:
                row[f"val_{name}"] = float(value)
            except (TypeError, ValueError, RuntimeError):
                raise UsageError(f"the metric {name} gives {type(value).__name__}; a single number is needed") from None
        return row

    def epoch_row(self) -> Row:
        """Return loss and accuracy in training and validation."""
        return {
            "train_loss": float(self.train_loss.compute()),
            "train_top1": float(self.train_top1.compute()),
            **self.validation(),
        }

    def epoch_sums(self) -> dict[str, Tensor]:
        """Return what loss and accuracy of the training images have counted so far."""
        metrics = {"train_loss": self.train_loss, "train_top1": self.train_top1}
        states = {f"{name}.{key}": value for name, m in metrics.items() for key, value in m.metric_state.items()}
        return {name: value for name, value in states.items() if isinstance(value, Tensor)}

    def go_on_with(self, sums: dict[str, Tensor]) -> None:
        """Take over such counts."""
        for name, value in sums.items():
            metric, _, key = name.partition(".")
            setattr(getattr(self, metric), key, value)

    def describe(self, row: Row) -> str:
        """Return losses and top-1."""
        top1 = f"top-1 {100 * row['val_top1']:6.2f} %"
        score = self.config.best
        more = f"  {SCORES[score]} {100 * row[f'val_{score}']:6.2f} %" if score in SCORES else ""
        return f"loss {row['train_loss']:.4f}  {self.watched} loss {row['val_loss']:.4f}  {top1}{more}"

    def score(self, row: Row) -> float | None:
        """Return the validation score that `best` names, the loss with its sign turned."""
        return -row["val_loss"] if self.config.best == "loss" else row[f"val_{self.config.best}"]

    def panels(self, rows: list[Row]) -> list[Panel]:
        """Return loss and top-1."""
        result = max(rows, key=lambda row: self.score(row) or 0) if self.selects else rows[-1]
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
