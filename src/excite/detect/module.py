"""The Lightning module of a detector: losses, schedule, validation."""

import torch
from torch import Tensor, nn

from excite.detect.bodies import Body
from excite.detect.config import DetectConfig
from excite.detect.data.base import DetectionDataset, Target
from excite.detect.detector import card_of
from excite.detect.metrics import Metrics, coco_metrics
from excite.detect.results import Result, to_results
from excite.engine.module import SCORE, Panel, Row, RunModule, gather
from excite.engine.seeds import derive

Batch = tuple[list[Tensor], list[Target]]


class DetectionModule(RunModule):
    """Trains a detector of `create_detector` and evaluates it on `val` as COCO does.

    After each epoch `losses` holds the means of the detector's losses, after each validation `metrics` its AP.
    """

    config: DetectConfig

    def __init__(self, detector: nn.Module, config: DetectConfig, val: DetectionDataset | None = None) -> None:
        super().__init__(detector, config)
        self.detector, self.val = detector, val
        self.results: list[Result] = []
        self.metrics: Metrics = {}
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    @property
    def losses(self) -> dict[str, float]:
        """The means of this epoch's losses so far, of this process."""
        return {k: float(v) / max(self.steps, 1) for k, v in self.sums.items()}

    def on_train_epoch_start(self) -> None:
        """Seed this epoch (the samplers of anchors and regions draw), and hold or release the backbone."""
        torch.manual_seed(derive("regions", self.config.seed, self.current_epoch, self.global_rank))
        body = next(m for m in self.detector.modules() if isinstance(m, Body))
        body.pause(self.current_epoch < self.config.freeze_backbone_epochs)
        self.sums, self.steps, self.metrics = {}, 0, {}
        super().on_train_epoch_start()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the sum of the detector's losses. Raises NonFiniteLossError."""
        losses = self.detector(*batch)
        total = torch.stack([v.float() for v in losses.values()]).sum()
        parts = {k.removeprefix("loss_"): v.detach().float() for k, v in losses.items()}
        if self.watch(total.detach(), index, parts):
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
        for target, detection in zip(batch[1], self.detector(batch[0]), strict=True):
            self.results += to_results(target["image_id"], detection, self.val.category_ids)

    def on_validation_epoch_end(self) -> None:
        """Evaluate the detections of all processes; `val/AP` chooses the best checkpoint."""
        assert self.val is not None
        self.metrics = coco_metrics(gather(self.results), self.val, masks=self.val.with_masks)
        for kind, values in self.metrics.items():
            for name in ("AP", "AP50", "AP75"):
                self.log(f"val/{kind}_{name}", values[name])
        best = self.metrics["mask" if self.val.with_masks else "box"]["AP"]
        self.log("val/AP", best)
        self.log(SCORE, best, logger=False)

    def epoch_row(self) -> Row:
        """Return the mean losses of all processes and, where the epoch was evaluated, the AP of boxes and masks."""
        parts = gather([self.losses])
        losses = {name: sum(part[name] for part in parts) / len(parts) for name in self.losses}
        scores = {f"{kind}_{n}": v[n] for kind, v in self.metrics.items() for n in ("AP", "AP50", "AP75")}
        return {**losses, **scores}

    def epoch_sums(self) -> dict[str, Tensor]:
        """Return the sums of the losses so far, and how many steps they are of."""
        return {**self.sums, "steps": torch.tensor(self.steps)}

    def go_on_with(self, sums: dict[str, Tensor]) -> None:
        """Take over such sums."""
        self.steps = int(sums.pop("steps"))
        self.sums = sums

    def describe(self, row: Row) -> str:
        """Return the loss and the AP of boxes and masks in percent."""
        scores = [f"{k.replace('_', ' ')} {100 * v:5.1f}" for k, v in row.items() if k.endswith(("AP", "AP50"))]
        return "  ".join([f"loss {row['loss']:.3f}", *scores])

    def score(self, row: Row) -> float | None:
        """Return the AP of masks, of boxes where there are none."""
        return row.get("mask_AP", row.get("box_AP"))

    def panels(self, rows: list[Row]) -> list[Panel]:
        """Return the losses, and AP where epochs were evaluated."""
        scores = dict.fromkeys(k for row in rows for k in row if "AP" in k)
        others = {"epoch", "lr", "seconds", "images_per_s", *scores}
        losses = dict.fromkeys(k for row in rows for k in row if k not in others)
        panels = [Panel("training losses", {k.replace("_", " "): k for k in losses})]
        if scores:
            panels.append(Panel("validation AP (%)", {k.replace("_", " "): k for k in scores}, 100))
        return panels

    def count(self, batch: Batch) -> int:
        """Return the number of images in a batch."""
        return len(batch[0])

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Put the card and the configuration beside the weights: enough to build the detector again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["excite_detector"] = card_of(self.detector).to_dict()
