"""scikit-learn's handwritten digits: 1797 grey images of 8x8 pixels, bundled with the library."""

import numpy as np
import torch

from excite.common.extras import require
from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess
from excite.data.splits import AnySplit, Source

SIZE = 16


def open_digits(spec: str) -> Source:
    """Open the digits: a fixed stratified hold-out of one fifth (360 images) is the test split.

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
    everything = ArrayImages(images, labels, [f"digit {i}" for i in range(len(labels))])
    rows = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=bunch.target, random_state=0)
    train, test = (everything.take(np.sort(part).tolist()) for part in rows)
    return Source({"train": train, "test": test}, [str(name) for name in bunch.target_names], _own_statistics)


def _own_statistics(train: AnySplit) -> Preprocess:
    assert isinstance(train, ArrayImages)
    grey = train.images.float() / 255
    mean, std = round(float(grey.mean()), 4), round(float(grey.std()), 4)
    return Preprocess(SIZE, SIZE, (mean,) * 3, (std,) * 3)
