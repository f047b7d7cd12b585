"""The Lightning module of a detector: losses, schedule, validation."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from excite.detect.bodies import Body
from excite.detect.config import DetectConfig
from excite.detect.data.base import DetectionDataset
from excite.detect.metrics import coco_metrics
from excite.detect.optim import lr_factor, make_optimizer
from excite.detect.results import Result, to_results
from excite.engine.seeds import derive
from excite.errors import ExciteError

Batch = tuple[list[Tensor], list[dict[str, Any]]]


class DetectionModule(L.LightningModule):
    """Trains a detector of `create_detector` and evaluates it on `val` as COCO does.

    After each epoch `losses` holds the means of the detector's losses, after each validation `metrics` its AP.
    """

    def __init__(self, detector: nn.Module, config: DetectConfig, val: DetectionDataset | None = None) -> None:
        super().__init__()
        self.detector, self.config, self.val = detector, config, val
        self.results: list[Result] = []
        self.metrics: dict[str, Any] = {}
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    @property
    def losses(self) -> dict[str, float]:
        """The means of this epoch's losses so far, of this process."""
        return {k: float(v) / max(self.steps, 1) for k, v in self.sums.items()}

    def on_train_epoch_start(self) -> None:
        """Seed this epoch (the samplers of anchors and regions draw), and hold or release the backbone."""
        torch.manual_seed(derive(self.config.seed, self.current_epoch, self.global_rank, 1))
        body = next(m for m in self.detector.modules() if isinstance(m, Body))
        body.pause(self.current_epoch < self.config.freeze_backbone_epochs)
        self.sums, self.steps = {}, 0

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the sum of the detector's losses. Raises ExciteError when it is not finite."""
        losses = self.detector(*batch)
        total = torch.stack([v.float() for v in losses.values()]).sum()
        parts = {k.removeprefix("loss_"): v.detach().float() for k, v in losses.items()}
        if not torch.isfinite(total):
            shown = ", ".join(f"{k} {float(v):.3g}" for k, v in parts.items())
            raise ExciteError(
                f"the loss is not finite at step {self.global_step} (epoch {self.current_epoch + 1}: {shown}). "
                "Try a lower --lr, --clip 10, more --warmup-steps or --precision 32"
            )
        for name, value in {"loss": total.detach(), **parts}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=total.device)) + value
        self.steps += 1
        self.log("train/loss_step", total.detach(), batch_size=len(batch[0]))
        return total

    def on_validation_epoch_start(self) -> None:
        """Forget the detections of the last validation."""
        self.results = []

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the detections."""
        assert self.val is not None
        for target, found in zip(batch[1], self.detector(batch[0]), strict=True):
            self.results += to_results(target["image_id"], found, self.val.category_ids)

    def on_validation_epoch_end(self) -> None:
        """Evaluate the detections of all processes; `val/AP` chooses the best checkpoint."""
        assert self.val is not None
        self.metrics = coco_metrics(gather(self.results), self.val, masks=self.val.with_masks)
        for kind, values in self.metrics.items():
            for name in ("AP", "AP50", "AP75"):
                self.log(f"val/{kind}_{name}", values[name])
        self.log("val/AP", self.metrics["mask" if self.val.with_masks else "box"]["AP"])

    def configure_optimizers(self) -> Any:
        """Return the optimizer and a schedule that moves every step."""
        config = self.config
        optimizer = make_optimizer(self.detector, config)
        steps = max(float(self.trainer.estimated_stepping_batches) / config.epochs, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(config, step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the card and the configuration beside the weights: enough to build the detector again."""
        checkpoint["excite_detector"] = self.detector.excite_card.to_dict()  # type: ignore[operator, union-attr]
        checkpoint["excite_config"] = self.config.to_dict()


def gather(results: list[Result]) -> list[Result]:
    """Return the results of all processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return results
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, results)
    return [r for part in parts for r in part]
