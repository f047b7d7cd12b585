"""Everything a training run can be told: one flat dataclass, also the shape of a recipe and of a run's config.yaml."""

import re
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from excite import recipes
from excite.engine.config import at_least, below_one, check_keys, read_run
from excite.errors import UsageError


@dataclass
class TrainConfig:
    """A training run.

    Args:
        model: a name of ours (eca_resnet50), timm/NAME, torchvision/NAME or path/to/file.py:factory.
        data: digits, cifar10, cifar100, imagefolder:PATH, parquet:PATH, hfds:NAME or wds:PATTERN.
        recipe: a recipe's name or YAML file; auto takes the one that fits the data and model.
        out: run directory; by default runs/MODEL-DATA, numbered where that exists.
        overwrite: empty the run directory first if it exists.
        resume: go on with the run in this directory, exactly where its last checkpoint stands.
        options: options of the model or its method, as --options.kernel_size 3,5,5,7.
        placement: which blocks of a stage get attention.
        attach: attach this attention method to the network.
        attach_sites: where to attach it: a preset, a pattern or paths with commas; default: the method's own place.
        attach_options: options of the attached method.
        init: start from the weights of this checkpoint where keys and shapes agree.
        epochs: passes over the training images.
        batch_size: images per step and device.
        optimizer: the optimizer.
        lr: peak learning rate.
        momentum: momentum of SGD (first beta of AdamW).
        nesterov: Nesterov momentum.
        weight_decay: weight decay.
        no_decay: parameters without weight decay, any of norm, bias, attention.
        schedule: learning rate over the epochs; step and exponential multiply by gamma every step_epochs.
        step_epochs: epochs between two drops of the step and exponential schedules.
        gamma: factor of a drop.
        warmup_epochs: epochs in which the learning rate rises linearly to lr.
        label_smoothing: label smoothing.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of cutmix; 0 is off (with mixup on too, each batch takes one of them).
        randaugment: magnitude of RandAugment, 0 to 30 (9 is usual); 0 is off.
        ema: decay of the exponential moving average of the weights (0.9999); 0 is off.
        accumulate: batches per optimizer step.
        clip: largest gradient norm; 0 is off.
        size: image size in pixels; 0 takes the data's own.
        resize: shorter side before the central crop in evaluation; 0 takes the data's own.
        augment: crop (pad, random crop), resized-crop (random area and ratio) or none.
        padding: pixels of zeros around the image for augment crop.
        flip: random horizontal flip.
        precision: 32, or mixed precision in bf16 or 16 bits.
        channels_last: keep maps in channels-last memory order.
        compile: run the network through torch.compile.
        accelerator: where to run; auto takes a GPU if there is one.
        devices: how many devices.
        workers: processes that decode images; -1 takes one per processor, less one. Small images are cached instead.
        seed: seed of weights, order and augmentation.
        deterministic: only deterministic algorithms.
        limit_train: use that many training images only.
        limit_val: use that many validation images only.
        limit_batches: end each epoch after that many training batches.
        skip_unreadable: go on without images that cannot be read; the summary counts them.
        quiet: print nothing.
    """

    model: str = "eca_resnet20"
    _: KW_ONLY
    data: str = "digits"
    recipe: str = "auto"
    out: str | None = None
    overwrite: bool = False
    resume: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    placement: Literal["all", "first", "last"] = "all"
    attach: str | None = None
    attach_sites: str | None = None
    attach_options: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    epochs: int = 30
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    no_decay: list[Literal["norm", "bias", "attention"]] = field(default_factory=list)
    schedule: Literal["cosine", "step", "exponential", "constant"] = "cosine"
    step_epochs: float = 30.0
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    ema: float = 0.0
    accumulate: int = 1
    clip: float = 0.0
    size: int = 0
    resize: int = 0
    augment: Literal["crop", "resized-crop", "none"] = "crop"
    padding: int = 2
    flip: bool = False
    precision: Literal["32", "bf16", "16"] = "32"
    channels_last: bool = False
    compile: bool = False
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    workers: int = -1
    seed: int = 0
    deterministic: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    limit_batches: int | None = None
    skip_unreadable: bool = False
    quiet: bool = False

    @classmethod
    def from_recipe(cls, model: str = "eca_resnet20", recipe: str = "auto", **changes: Any) -> "TrainConfig":
        """Return a recipe's configuration with `changes`. Raises UsageError for unknown recipes and options."""
        chosen = resolve_recipe(recipe, model, changes.get("data", "digits"))
        return cls(**check_keys(cls, {**recipes.load(chosen), "recipe": chosen, "model": model, **changes}, chosen))

    @classmethod
    def from_run(cls, run: str | Path, **changes: Any) -> "TrainConfig":
        """Return the configuration of an earlier run, set to resume it. Raises UsageError where there is none."""
        return cls(**{**read_run(cls, run), "resume": str(run), "overwrite": False, **changes})

    @property
    def stem(self) -> str:
        """The name of a run that was given none: network and data."""
        model = re.sub(r"[^\w.]+", "-", Path(self.model).name if ":" in self.model else self.model)
        kind, _, place = self.data.partition(":")
        return f"{model}-{Path(place).name if place else kind}"

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain containers."""
        return asdict(self)

    def check(self) -> None:
        """Raise UsageError for the first value that cannot work."""
        at_least(self, 1, "epochs", "batch_size", "accumulate", "devices")
        at_least(self, 0, "lr", "weight_decay", "warmup_epochs", "mixup", "cutmix", "randaugment", "clip")
        at_least(self, 0, "size", "resize", "padding")
        limits = ("limit_train", "limit_val", "limit_batches")
        at_least(self, 1, *(name for name in limits if getattr(self, name) is not None))
        below_one(self, "label_smoothing", "ema", "momentum")
        if self.randaugment > 30:
            raise UsageError(f"--randaugment goes to 30, got {self.randaugment}")
        if self.step_epochs <= 0:
            raise UsageError(f"--step-epochs must be more than 0, got {self.step_epochs}")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")


def resolve_recipe(recipe: str, model: str, data: str) -> str:
    """Return the recipe that `auto` stands for: by the data, then by the network's family.

    Nothing is opened: data counts as CIFAR by its name, or by the last two parts of its path (parquet:PATH/cifar10).
    """
    if recipe != "auto":
        return recipe
    if data == "digits":
        return "digits"
    small = model.endswith(("_cifar", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"))
    if small or any("cifar" in part.lower() for part in re.split(r"[:/\\]", data.rstrip("/\\"))[-2:]):
        return "emanet-cifar10"
    return "ecanet-mobilenetv2" if "mobilenet" in model else "ecanet-imagenet"
