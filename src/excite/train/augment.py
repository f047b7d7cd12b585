"""Augmentation: whole batches of small images at once, or one large image at a time. Everything stays uint8."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from excite.train.config import TrainConfig

if TYPE_CHECKING:
    from PIL.Image import Image


Transform = Callable[["Image | Tensor"], Tensor]
Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def crop_and_flip(
    images: Tensor, padding: int, flip: bool, generator: torch.Generator, rank: int = 0, world: int = 1
) -> Tensor:
    """Pad with zeros, cut a random window of the same size, flip half of the images. images: [n c h w], any dtype.

    Each image draws its own offset and flip; the windows are one gather, without a loop. rank, world: these are every
    `world`-th of the images of a step, from number `rank`; what they draw does not depend on it.
    """
    n, _, height, width = images.shape
    own = slice(rank, None, world)
    if padding:
        top, left = torch.randint(0, 2 * padding + 1, (2, n * world), generator=generator)[:, own].to(images.device)
        padded = F.pad(images, (padding,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view [n c 2p+1 2p+1 h w]
        images = windows[torch.arange(n, device=images.device), :, top, left]
    if flip:
        chosen = (torch.rand(n * world, generator=generator)[own] < 0.5).to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(-1), images)
    return images


def train_transform(config: TrainConfig, size: int) -> Transform:
    """Return the transform of one training image (PIL or uint8 [3 h w]) to uint8 [3 size size]."""
    steps: list[v2.Transform] = [v2.ToImage()]
    if config.augment == "resized-crop":
        steps.append(v2.RandomResizedCrop(size, antialias=True))
    else:
        steps += [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
        if config.augment == "crop" and config.padding:
            steps.append(v2.RandomCrop(size, padding=config.padding))
    if config.flip:
        steps.append(v2.RandomHorizontalFlip())
    if config.randaugment:
        steps.append(v2.RandAugment(magnitude=config.randaugment))
    return v2.Compose([*steps, v2.ToPureTensor()])


def mixer(config: TrainConfig, num_classes: int) -> Mixer | None:
    """Return mixup, cutmix or a choice of both for batches; None where both are off. Labels become [n classes]."""
    parts: list[v2.Transform] = []
    if config.mixup:
        parts.append(v2.MixUp(alpha=config.mixup, num_classes=num_classes))
    if config.cutmix:
        parts.append(v2.CutMix(alpha=config.cutmix, num_classes=num_classes))
    return v2.RandomChoice(parts) if len(parts) > 1 else next(iter(parts), None)
