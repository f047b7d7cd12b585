"""CIFAR-10 and CIFAR-100, downloaded by torchvision on first use."""

import torch

from excite.data.arrays import ArrayImages
from excite.data.bundle import DataBundle, chosen
from excite.data.preprocess import Preprocess
from excite.errors import ExciteError
from excite.runtime import cache_folder


def open_cifar(spec: str, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
    """Open `cifar10` or `cifar100` from `~/.cache/excite` (EXCITE_CACHE moves it). Raises ExciteError."""
    from torchvision import datasets

    root = cache_folder()
    kind = datasets.CIFAR10 if spec == "cifar10" else datasets.CIFAR100
    splits = []
    names: list[str] = []
    for train, limit in ((True, limit_train), (False, limit_val)):
        try:
            source = kind(root, train=train, download=True)
        except Exception as error:  # urllib, ssl, tarfile and checksum errors share no base class
            raise ExciteError(
                f"cannot download {spec} to {root}: {error}; with the images at hand use parquet:PATH"
            ) from error
        rows = list(chosen(len(source), limit))
        images = torch.from_numpy(source.data[rows]).permute(0, 3, 1, 2).contiguous()
        splits.append(ArrayImages(images, torch.tensor(source.targets)[rows]))
        names = list(source.classes)
    return DataBundle(spec, splits[0], splits[1], names, Preprocess.for_images_of(32).to_dict())
