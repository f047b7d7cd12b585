"""Everything a detection run can be told: one flat dataclass, also the shape of a recipe and of a run's config.yaml."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from excite.common.options import Option, flag
from excite.engine.config import RunConfig, at_least, check_keys, file_values
from excite.errors import UsageError
from excite.recipes import detection as recipes


@dataclass
class DetectConfig(RunConfig):
    """A detection run.

    Args:
        backbone: a name of ours (eca_resnet50), timm/NAME, torchvision/NAME or path/to/file.py:factory.
        kind: the detector.
        data: data spec: shapes, shapes:size=128,most=4, coco:PATH, voc:PATH, yolo:PATH, or a folder's path.
        recipe: a recipe's name or YAML file; auto takes shapes for shapes and small for other data.
        out: run directory; by default runs/KIND-BACKBONE-DATA, numbered where that exists.
        train_split: images to train on.
        val_split: images to evaluate on after epochs: the result is the best epoch on them, of a test split the last
            one; none evaluates nothing.
        neck: fpn (a feature pyramid) or c4 (stage 4 runs on regions; faster_rcnn only).
        neck_attention: attention method on every level of the pyramid.
        neck_attention_options: options of that method.
        frozen_stages: -1 nothing, 0 the stem, 1 the stem and stage 1, ...; parameters and norms stay as they are.
        frozen_norms: the running statistics of the backbone's norms stay as they are.
        freeze_backbone_epochs: train only neck and heads in the first epochs.
        checkpoint: classification checkpoint for the backbone.
        init: detector checkpoint or run directory to start from.
        options: further options of the detector or the backbone, as --options.neck_channels 64.
        min_size: shorter side in pixels; several values are drawn from in training and the last is used in evaluation.
        max_size: longest longer side in pixels.
        flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip.
        colour: strength of colour jitter.
        val_every: epochs between two evaluations.
        skip_unreadable: go on without images that cannot be read; all are read once before training.
        pictures: how many validation images to draw predictions on at the end.
    """

    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (*RunConfig.FREE_ON_RESUME, "pictures")

    backbone: str = "eca_resnet20"
    _: KW_ONLY
    kind: Literal["faster_rcnn", "mask_rcnn", "retinanet"] = "faster_rcnn"
    data: str = "shapes"
    train_split: str = "train"
    val_split: str = "val"
    neck: Literal["fpn", "c4"] = "fpn"
    neck_attention: str | None = None
    neck_attention_options: dict[str, Option] = field(default_factory=dict)
    frozen_stages: int = -1
    frozen_norms: bool = False
    freeze_backbone_epochs: int = 0
    checkpoint: str | None = None
    init: str | None = None
    options: dict[str, Option] = field(default_factory=dict)
    min_size: list[int] = field(default_factory=lambda: [800])
    max_size: int = 1333
    flip: float = 0.5
    vertical_flip: float = 0.0
    colour: float = 0.0
    epochs: int = 12
    batch_size: int = 8
    lr: float | Literal["auto"] = 0.01
    schedule: Literal["cosine", "step", "exponential", "constant"] = "step"
    milestones: list[int] = field(default_factory=lambda: [8, 11])
    warmup_steps: int | None = 500
    val_every: int = 1
    pictures: int = 12

    @classmethod
    def from_recipe(cls, recipe: str = "auto", **changes: Option) -> "DetectConfig":
        """Return a recipe's configuration with `changes`. Raises UsageError for unknown recipes and options."""
        chosen = resolve_recipe(recipe, changes.get("data", "shapes"))
        values = file_values(cls, recipes.load(chosen), f"recipe {chosen}", changes)
        return cls(**check_keys(cls, {**values, "recipe": chosen, **changes}, "configuration"))

    @property
    def stem(self) -> str:
        """The name of a run that was given none: detector, backbone and data."""
        kind, _, path = self.data.partition(":")
        data = Path(path).name if kind in ("coco", "voc") else kind
        return f"{self.kind}-{Path(self.backbone).name}-{data}"

    @property
    def with_masks(self) -> bool:
        """Whether the detector learns masks."""
        return self.kind == "mask_rcnn"

    def check(self) -> None:
        """Raise UsageError for the first value that cannot work."""
        super().check()
        at_least(self, 1, "val_every", "max_size")
        at_least(self, 0, "pictures", "freeze_backbone_epochs")
        if self.patience and self.val_split == "none":
            raise UsageError("--patience waits for a better score, and --val-split none gives none")
        if not isinstance(self.lr, str) and self.lr <= 0:
            raise UsageError(f"--lr must be more than 0, got {self.lr}")
        for name in ("flip", "vertical_flip", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{flag(name)} must be in [0, 1], got {getattr(self, name)}")
        if not self.min_size or min(self.min_size) < 1:
            raise UsageError(f"--min-size must be one or more sizes in pixels, got {self.min_size}")
        if max(self.min_size) > self.max_size:
            raise UsageError(f"--min-size {max(self.min_size)} is more than --max-size {self.max_size}")
        if self.init and self.checkpoint:
            raise UsageError("--init (a whole detector) and --checkpoint (a backbone) exclude each other")


def resolve_recipe(recipe: str, data: str) -> str:
    """Return the recipe that `auto` stands for."""
    if recipe != "auto":
        return recipe
    return "shapes" if data.partition(":")[0] == "shapes" else "small"
