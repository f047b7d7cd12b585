"""What is done to an image and its boxes and masks before training; sizes are the detector's own business."""

from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import v2

from excite.detect.data.base import Item

Transform = Callable[[Any, dict[str, Any]], Item]


def training_transform(*, flip: float = 0.5, vertical_flip: float = 0.0, colour: float = 0.0) -> Transform:
    """Return the transform for training: flips with these probabilities, colour jitter of this strength (0: none).

    Objects that are ignored (crowds, difficult ones) are dropped, and so are boxes without an area.
    """
    steps: list[Any] = []
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if vertical_flip:
        steps.append(v2.RandomVerticalFlip(vertical_flip))
    if colour:
        steps.append(v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour, hue=min(0.5, colour / 4)))
    augment = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])

    def apply(image: Any, target: dict[str, Any]) -> Item:
        keep = ~target["ignored"]
        kept = {k: v[keep] if k in ("boxes", "labels", "masks", "ignored") else v for k, v in target.items()}
        kept["boxes"] = _like(target["boxes"], kept["boxes"])
        if "masks" in kept:
            kept["masks"] = _like(target["masks"], kept["masks"])
        image, kept = augment(image, kept)
        return image, kept

    return apply


def _like(original: Any, values: torch.Tensor) -> Any:
    """Indexing turns boxes and masks into plain tensors, which no transform would flip: wrap them again."""
    from torchvision import tv_tensors

    return tv_tensors.wrap(values, like=original)


def evaluation_transform() -> Transform:
    """Return the transform for evaluation: float pixels in [0, 1], nothing else."""
    convert = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])

    def apply(image: Any, target: dict[str, Any]) -> Item:
        found: Item = convert(image, target)
        return found

    return apply


def collate(batch: list[Item]) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """Keep images and targets as lists: they differ in size."""
    return [image for image, _ in batch], [target for _, target in batch]
