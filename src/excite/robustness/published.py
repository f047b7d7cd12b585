"""The published corrupted sets: CIFAR-10-C's `.npy` files and ImageNet-C's folders, read where they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from excite.data.bundle import chosen
from excite.data.preprocess import read_rgb
from excite.errors import ExciteError, UsageError
from excite.robustness.tables import FAMILIES, SEVERITIES

SUFFIXES = {".jpeg", ".jpg", ".png"}


Picture = Image | torch.Tensor  # RGB, or uint8 [3 h w]


@dataclass
class Published:
    """A corrupted set on disk. layout: "npy" or "folders"; families: which of the 15 are there."""

    root: Path
    layout: str
    families: tuple[str, ...]

    def images(self, family: str, severity: int, limit: int, classes: Sequence[str]) -> Iterator[tuple[Picture, int]]:
        """Yield (image, label) of `limit` images, spread over the set (over the classes in the folder layout).

        classes: the network's class names in order. Raises ExciteError for files that do not fit.
        """
        reader = self._arrays if self.layout == "npy" else self._folders
        return reader(family, severity, limit, classes)

    def _arrays(self, family: str, severity: int, limit: int, classes: Sequence[str]) -> Iterator[tuple[Picture, int]]:
        labels = _load(self.root / "labels.npy")
        values = _load(self.root / f"{family}.npy")
        if values.ndim != 4 or values.shape[3] != 3 or values.dtype != np.uint8:
            raise ExciteError(f"{family}.npy holds {values.dtype} {values.shape}; CIFAR-10-C has uint8 [5n, 32, 32, 3]")
        if len(values) % len(SEVERITIES) or len(labels) not in (len(values), len(values) // len(SEVERITIES)):
            raise ExciteError(
                f"{family}.npy holds {len(values)} images and labels.npy {len(labels)} labels; expected are five "
                "severities of equal size and a label for each image"
            )
        n = len(values) // len(SEVERITIES)
        start = n * (severity - 1)
        for i in chosen(n, limit):  # the rows that a limit keeps of the clean images too
            label = int(labels[start + i] if len(labels) == len(values) else labels[i])
            yield torch.from_numpy(np.array(values[start + i])).permute(2, 0, 1), label

    def _folders(self, family: str, severity: int, limit: int, classes: Sequence[str]) -> Iterator[tuple[Picture, int]]:
        folder = self.root / family / str(severity)
        if not folder.is_dir():
            raise ExciteError(f"{folder} is missing; ImageNet-C lays images out as FAMILY/SEVERITY/CLASS/*.JPEG")
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())
        labels = _labels(names, classes, folder)
        files = [sorted(p for p in (folder / n).iterdir() if p.suffix.lower() in SUFFIXES) for n in names]
        taken, row = 0, 0
        while taken < limit and any(row < len(f) for f in files):
            for images, label in zip(files, labels, strict=True):
                if row < len(images) and taken < limit:
                    taken += 1
                    yield read_rgb(images[row]), label
            row += 1
        if not taken:
            raise ExciteError(f"{folder} holds no images (looked for {', '.join(sorted(SUFFIXES))} in class folders)")


def _load(path: Path) -> np.ndarray:
    """Map an array into memory: a family of CIFAR-10-C is 150 MB. Nothing pickled is read."""
    try:
        values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ExciteError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    return values


def _labels(names: Sequence[str], classes: Sequence[str], folder: Path) -> list[int]:
    """Class folders by name where the network knows the names, else by their order where their number agrees."""
    if set(names) <= set(classes):
        return [list(classes).index(n) for n in names]
    if len(names) == len(classes):
        return list(range(len(names)))
    raise ExciteError(
        f"{folder} holds {len(names)} class folders, the network has {len(classes)} classes, and the names do not agree"
    )


def open_published(path: str | Path) -> Published:
    """Open a corrupted set; the layout is recognised. Raises UsageError where it is neither."""
    root = Path(path)
    if not root.is_dir():
        raise UsageError(f"no folder {str(root)!r}; give CIFAR-10-C's (FAMILY.npy, labels.npy) or ImageNet-C's")
    arrays = tuple(f for f in FAMILIES if (root / f"{f}.npy").is_file())
    if arrays:
        if not (root / "labels.npy").is_file():
            raise UsageError(f"{root} has {arrays[0]}.npy but no labels.npy; CIFAR-10-C needs both")
        return Published(root, "npy", arrays)
    folders = tuple(f for f in FAMILIES if (root / f).is_dir())
    if folders:
        return Published(root, "folders", folders)
    raise UsageError(
        f"{root} holds no corrupted set: neither FAMILY.npy with labels.npy (CIFAR-10-C) nor FAMILY/SEVERITY/CLASS "
        f"folders (ImageNet-C); families are {', '.join(FAMILIES)}"
    )
