"""What is done to an image and its boxes and masks before training; sizes are the detector's own business."""

from collections.abc import Callable

import torch
from torchvision.transforms import v2

from excite.detect.data.base import Item, Target

Transform = Callable[[torch.Tensor, Target], Item]


def training_transform(*, flip: float = 0.5, vertical_flip: float = 0.0, colour: float = 0.0) -> Transform:
    """Return the transform for training: flips with these probabilities, colour jitter of this strength (0: none).

    Objects that are ignored (crowds, difficult ones) are dropped, and so are boxes without an area.
    """
    steps: list[v2.Transform] = []
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if vertical_flip:
        steps.append(v2.RandomVerticalFlip(vertical_flip))
    if colour:
        steps.append(v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour, hue=min(0.5, colour / 4)))
    augment = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])

    def apply(image: torch.Tensor, target: Target) -> Item:
        keep = ~target["ignored"]
        learned: Target = {
            **target,
            "boxes": _pick(target["boxes"], keep),
            "labels": target["labels"][keep],
            "ignored": target["ignored"][keep],
        }
        if "masks" in target:
            learned["masks"] = _pick(target["masks"], keep)
        image, learned = augment(image, learned)
        return image, learned

    return apply


def _pick(values: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Indexing turns boxes and masks into plain tensors, which no transform would flip: wrap them again."""
    from torchvision import tv_tensors

    return tv_tensors.wrap(values[keep], like=values)


def evaluation_transform() -> Transform:
    """Return the transform for evaluation: float pixels in [0, 1], nothing else."""
    convert = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])

    def apply(image: torch.Tensor, target: Target) -> Item:
        image, target = convert(image, target)
        return image, target

    return apply


def collate(batch: list[Item]) -> tuple[list[torch.Tensor], list[Target]]:
    """Keep images and targets as lists: they differ in size."""
    return [image for image, _ in batch], [target for _, target in batch]
