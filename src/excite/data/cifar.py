"""CIFAR-10 and CIFAR-100, downloaded by torchvision on first use."""

import torch

from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess
from excite.data.splits import Source, SplitName
from excite.errors import ExciteError
from excite.runtime import cache_folder


def open_cifar(spec: str) -> Source:
    """Open `cifar10` or `cifar100` from `~/.cache/excite` (EXCITE_CACHE moves it). Raises ExciteError.

    Splits: the published training and test images.
    """
    from torchvision import datasets

    root = cache_folder()
    kind = datasets.CIFAR10 if spec == "cifar10" else datasets.CIFAR100
    splits: dict[SplitName, ArrayImages] = {}
    class_names: list[str] = []
    names: tuple[SplitName, SplitName] = ("train", "test")
    for name in names:
        try:
            source = kind(root, train=name == "train", download=True)
        except Exception as error:  # urllib, ssl, tarfile and checksum errors share no base class
            raise ExciteError(
                f"cannot download {spec} to {root}: {error}; with the images at hand use parquet:PATH"
            ) from error
        images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
        splits[name] = ArrayImages(images, torch.tensor(source.targets))
        class_names = list(source.classes)
    return Source(splits, class_names, lambda _: Preprocess.for_images_of(32))
