"""Everything a classification run can be told: one flat dataclass, also the shape of a recipe and of a config.yaml."""

import re
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from excite import recipes
from excite.card import LARGEST_SIDE, MOST_CHANNELS
from excite.common.checks import shown
from excite.common.holdout import read_cut
from excite.common.options import Option, flag
from excite.engine.config import RunConfig, at_least, at_most, below_one, check_keys, file_values
from excite.errors import UsageError

SHARDED = ("sgd", "adam", "adamw")  # optimizers that work on each weight for itself
# Options that only a trained network has a use for, and what they are for a fresh one.
FOR_TRAINED: dict[str, float] = {"freeze_backbone_epochs": 0, "backbone_lr_factor": 1.0, "layer_decay": 1.0}


@dataclass
class TrainConfig(RunConfig):
    """A classification run.

    Args:
        model: a name of ours (eca_resnet50), timm/NAME, torchvision/NAME or path/to/file.py:factory.
        data: data spec: a folder's or file's path, digits, cifar10, imagefolder:PATH, ..., or path/to/file.py:factory.
        recipe: a recipe's name or YAML file; auto takes the one that fits the data and model.
        out: run directory; by default runs/MODEL-DATA, numbered where that exists.
        options: options of the model or its method, as --options.kernel_size 3,5,5,7.
        placement: which blocks of a stage get attention.
        attach: attach this attention method to the network; FILE.py:NAME is one of your own.
        attach_sites: where to attach it: a preset, a pattern or paths with commas; default: the method's own place.
        attach_options: options of the attached method.
        pretrained: start from trained weights, timm's or torchvision's own or those that come with excite.
        init: start from the weights of this checkpoint where keys and shapes agree.
        start: go on from this file of another training script; what --resume FILE sets.
        freeze: modules or parameters that do not learn, by path, with * for any text: conv1 bn1 'layer1*'.
        freeze_backbone_epochs: let only the classifier and the attention learn in the first epochs.
        backbone_lr_factor: learning rate of all but classifier and attention, as a factor of lr.
        layer_decay: factor of the backbone's learning rate for every block farther from the classifier.
        loss: the loss; own is that of excite.fit(..., loss=FUNCTION).
        focal_gamma: gamma of the focal loss.
        balance: against classes with few images: sampler draws all classes equally often, loss weighs them.
        best: which score's highest value (of loss, its lowest) marks the best epoch.
        label_smoothing: label smoothing.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of cutmix; 0 is off (with mixup on too, each batch takes one of them).
        randaugment: magnitude of RandAugment, 0 to 30 (9 is usual); 0 is off.
        val_fraction: share of the training images (of each class) to hold out as the validation split that data lack.
        test_fraction: the same for a test split.
        size: image size in pixels; 0 takes the images' median side up to 64, above it 224 (64 for CIFAR networks).
        resize: shorter side before the central crop in evaluation; 0 takes size, or 256 for 224.
        window: two samples, of images of more than 8 bits, that become black and white; default: their type's range.
        channels: channels of the network: 3 (RGB), 1 (their luma), or those of the files (.npy, TIFF pages).
        max_bad: with skip_unreadable, end the run once more than so many images could not be read.
        strategy: ddp: each process has the whole network; fsdp: each keeps a part of weights, gradients and optimizer
            (FSDP2), for networks too large for one GPU.
        decoder: what decodes JPEG files in training: turbo takes the fastest that is there, with the pixels of pillow.
        cache: GiB on disk for images resized to `resize`, so that large photos are decoded once; 0 is off.
        augment: crop (pad, random crop), resized-crop (random area and ratio) or none.
        padding: pixels of zeros around the image for augment crop.
        flip: random horizontal flip.
        workers: processes that decode images; -1 takes one per processor, less one. Small images are cached instead.
    """

    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (*RunConfig.FREE_ON_RESUME, "max_bad", "decoder", "strategy")
    # The shares to hold out are written into `data`, which is recorded.
    NOT_RECORDED: ClassVar[tuple[str, ...]] = (*RunConfig.NOT_RECORDED, "val_fraction", "test_fraction")

    model: str = "eca_resnet20"
    _: KW_ONLY
    data: str = "digits"
    options: dict[str, Option] = field(default_factory=dict)
    placement: Literal["all", "first", "last"] = "all"
    attach: str | None = None
    attach_sites: str | None = None
    attach_options: dict[str, Option] = field(default_factory=dict)
    pretrained: bool = False
    init: str | None = None
    start: str | None = None
    freeze: list[str] = field(default_factory=list)
    freeze_backbone_epochs: int = 0
    backbone_lr_factor: float = 1.0
    layer_decay: float = 1.0
    loss: Literal["cross-entropy", "focal", "own"] = "cross-entropy"
    focal_gamma: float = 2.0
    balance: Literal["none", "sampler", "loss"] = "none"
    best: Literal["top1", "macro_f1", "balanced_accuracy", "loss"] = "top1"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    val_fraction: float | None = None
    test_fraction: float | None = None
    size: int = 0
    resize: int = 0
    window: list[float] = field(default_factory=list)
    channels: int = 3
    max_bad: int | None = None
    strategy: Literal["ddp", "fsdp"] = "ddp"
    decoder: Literal["turbo", "pillow"] = "turbo"
    cache: float = 0.0
    augment: Literal["crop", "resized-crop", "none"] = "crop"
    padding: int = 2
    flip: bool = False

    @classmethod
    def from_recipe(cls, model: str = "eca_resnet20", recipe: str = "auto", **changes: Option) -> "TrainConfig":
        """Return a recipe's configuration with `changes`. Raises UsageError for unknown recipes and options."""
        chosen = resolve_recipe(recipe, model, changes.get("data", "digits"))
        values = file_values(cls, recipes.load(chosen), f"recipe {chosen}", ["model", *changes])
        return cls(**check_keys(cls, {**values, "recipe": chosen, "model": model, **changes}, "configuration"))

    def __post_init__(self) -> None:
        """Write the shares to hold out into the data spec, where every command finds them again."""
        shares = (self.val_fraction, self.test_fraction)
        given = any(share is not None for share in shares) and isinstance(self.data, str)
        if given and all(share is None or _is_share(share) for share in shares):
            place, cut = read_cut(self.data)
            self.data = cut.updated(*shares).written(place)
            self.val_fraction = self.test_fraction = None

    @property
    def stem(self) -> str:
        """The name of a run that was given none: network and data."""
        model = re.sub(r"[^\w.]+", "-", Path(self.model).name if ":" in self.model else self.model)
        kind, _, path = read_cut(self.data)[0].partition(":")
        return f"{model}-{Path(path or kind).name}"

    def check(self) -> None:
        """Raise UsageError for the first value that cannot work."""
        super().check()
        at_least(self, 0, "mixup", "cutmix", "randaugment", "size", "resize", "padding", "cache")
        if self.window and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise UsageError(f"--window takes two numbers, the lower one first, got {shown(self.window)}")
        at_least(self, 1, "channels")
        if self.max_bad is not None:
            at_least(self, 0, "max_bad")
            if not self.skip_unreadable:
                raise UsageError(f"--max-bad {self.max_bad} bounds what --skip-unreadable passes over; give that too")
        at_most(self, MOST_CHANNELS, "channels")
        if self.channels not in (1, 3) and self.randaugment:
            raise UsageError(f"--randaugment is for colours; images of {self.channels} channels have none")
        shares = (name for name in ("val_fraction", "test_fraction") if getattr(self, name) is not None)
        below_one(self, "label_smoothing", *shares)
        at_least(self, 0, "freeze_backbone_epochs", "focal_gamma")
        if self.lr == "find" and self.processes > 1:
            raise UsageError("--lr find looks on one device; run it with --devices 1, then give --lr the number")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"--layer-decay must be in (0, 1], got {self.layer_decay}")
        if self.backbone_lr_factor <= 0:
            raise UsageError(
                f"--backbone-lr-factor must be more than 0, got {self.backbone_lr_factor}; "
                "--freeze holds parts for the whole run"
            )
        if self.focal_gamma != 2 and self.loss != "focal":
            raise UsageError(f"--focal-gamma {self.focal_gamma} is for --loss focal, and the loss is {self.loss}")
        if self.loss == "own" and (self.balance == "loss" or self.label_smoothing):
            option = "--balance loss" if self.balance == "loss" else "--label-smoothing"
            raise UsageError(f"{option} is for the losses that are built in; put it into your own loss")
        if self.strategy == "fsdp":
            self._check_sharding()
        at_most(self, LARGEST_SIDE, "size", "resize", "padding")
        if self.pretrained and self.init:
            raise UsageError("--pretrained and --init exclude each other: both say what to start from")
        if self.start and (self.init or self.pretrained):
            raise UsageError("--resume FILE says what to start from; leave --init and --pretrained out")
        if self.randaugment > 30:
            raise UsageError(f"--randaugment goes to 30, got {self.randaugment}")

    def _check_sharding(self) -> None:
        """Raise UsageError for the first option that a sharded network cannot have."""
        if self.processes < 2:
            raise UsageError("--strategy fsdp shares a network among processes; give --devices 2 or more, or --nodes")
        without = {
            "ema": bool(self.ema), "compile": self.compile, "channels_last": self.channels_last,
            "freeze_backbone_epochs": self.freeze_backbone_epochs > 0, "start": self.start is not None,
        }  # fmt: skip
        for name, wanted in without.items():
            if wanted:
                option = "--resume FILE" if name == "start" else flag(name)
                raise UsageError(f"{option} needs the whole network in each process; --strategy ddp has it there")
        if self.precision == "fp16":
            raise UsageError("--strategy fsdp computes in fp32 or bf16, not in fp16")
        if self.optimizer not in SHARDED:
            raise UsageError(f"--strategy fsdp takes --optimizer {', '.join(SHARDED)}; got {self.optimizer}")


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1


def is_small(model: str) -> bool:
    """True for a name of the CIFAR family, whose networks are made for images of 32 pixels."""
    return model.endswith(("_cifar", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"))


def resolve_recipe(recipe: str, model: str, data: str) -> str:
    """Return the recipe that `auto` stands for: by the data, then by the network's family.

    Nothing is opened: data counts as CIFAR by its name, or by the last two parts of its path (parquet:PATH/cifar10).
    """
    if recipe != "auto":
        return recipe
    data = read_cut(data)[0]
    if data == "digits":
        return "digits"
    if is_small(model) or any("cifar" in part.lower() for part in re.split(r"[:/\\]", data.rstrip("/\\"))[-2:]):
        return "emanet-cifar10"
    # timm's networks have other names for the options that this recipe sets.
    return "ecanet-mobilenetv2" if "mobilenet_v2" in model and not model.startswith("timm/") else "ecanet-imagenet"
