"""Real images as an exported network wants them, for calibration and for accuracy before and after."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from excite.errors import UsageError
from excite.models import NetworkSpec

Labelled = tuple[torch.Tensor, torch.Tensor]


def evaluation_transform(card: NetworkSpec, input_size: int) -> Callable[[Any], torch.Tensor]:
    """Return image -> `[c size size]` float32: the card's resize, centre crop and statistics, for another size too."""
    known = card.preprocess or {"size": input_size, "resize": input_size, "mean": [0.5] * 3, "std": [0.5] * 3}
    resize = round(known["resize"] * input_size / known["size"])
    steps = [v2.ToImage(), v2.Resize(resize, antialias=True), v2.CenterCrop(input_size)]
    if card.in_channels == 1:
        steps.append(v2.Grayscale(1))
    mean, std = known["mean"][: card.in_channels], known["std"][: card.in_channels]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def spread(total: int, wanted: int) -> Sequence[int]:
    """Return `wanted` indices spread evenly over `total`."""
    return range(total) if wanted >= total else [int(i) for i in np.linspace(0, total - 1, wanted)]


def labelled_batches(images: Any, card: NetworkSpec, input_size: int, limit: int, size: int = 32) -> Iterator[Labelled]:
    """Yield (images `[n c h w]`, labels `[n]`) of at most `limit` images of a data set."""
    transform = evaluation_transform(card, input_size)
    indices = spread(len(images), limit)
    for start in range(0, len(indices), size):
        pairs = [images[i] for i in indices[start : start + size]]
        yield torch.stack([transform(image) for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def top1(run: Callable[[torch.Tensor], torch.Tensor], batches: Sequence[Labelled]) -> float:
    """Return the share of images whose largest logit is the right one."""
    if not batches:
        raise UsageError("no images to measure an accuracy on")
    right = sum(int((run(x).argmax(1) == y).sum()) for x, y in batches)
    return right / sum(len(y) for _, y in batches)
