"""scikit-learn's handwritten digits: 1797 grey images of 8x8 pixels, bundled with the library."""

import numpy as np
import torch

from excite.common.extras import require
from excite.data.arrays import ArrayImages
from excite.data.bundle import DataBundle, chosen
from excite.data.preprocess import Preprocess

SIZE = 16


def open_digits(spec: str, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
    """Open the digits: a fixed stratified hold-out of one fifth (360 images) is the validation split.

    The 8x8 greys in 0-16 become 3-channel images of 16x16 pixels (bilinear) in 0-255.
    """
    require("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    grey = torch.from_numpy(np.asarray(bunch.images, dtype=np.float32))[:, None] * (255 / 16)
    larger = torch.nn.functional.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images = larger.round().to(torch.uint8).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(np.asarray(bunch.target)).long()
    train, val = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=bunch.target, random_state=0)
    splits = []
    for rows, limit in ((train, limit_train), (val, limit_val)):
        indices = torch.as_tensor(np.sort(rows)[list(chosen(len(rows), limit))])
        splits.append(ArrayImages(images[indices], labels[indices], [f"digit {int(i)}" for i in indices]))
    mean, std = float(images.float().mean() / 255), float(images.float().std() / 255)
    how = Preprocess(SIZE, SIZE, (round(mean, 4),) * 3, (round(std, 4),) * 3)
    return DataBundle(spec, splits[0], splits[1], [str(name) for name in bunch.target_names], how.to_dict())
