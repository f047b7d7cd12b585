"""A few validation images as files, so that there is something to predict on."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from excite.common.files import replacing, safe_name
from excite.data.preprocess import UnreadableImageError
from excite.train.datamodule import ImageData


def save_samples(data: ImageData, folder: Path, most: int = 10) -> None:
    """Write the first validation image of each of the first classes as CLASS.png."""
    images = data.val_images if data.cached else data.bundle.val
    seen: set[int] = set()
    taken: set[str] = set()
    for index in range(min(len(images), 20 * most)):
        try:
            image, label = images[index]
        except UnreadableImageError:
            continue
        if label in seen:
            continue
        seen.add(label)
        if isinstance(image, torch.Tensor):
            image = Image.fromarray(np.asarray(image.permute(1, 2, 0)))
        with replacing(folder / f"{safe_name(data.bundle.class_names[label], taken)}.png") as file:
            image.save(file)
        if len(seen) == min(most, data.bundle.num_classes):
            return
