"""Resized images kept on disk, so that large photos are decoded once."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from excite.data.bundle import Split, chosen
from excite.data.splits import labels_of
from excite.errors import ExciteError
from excite.runtime import cache_folder


class ResizedImages:
    """Images with their shorter side resized to `side`, uint8 `[3 h w]`; smaller ones stay as they are.

    spec: what the images are of. limit: bytes on disk: so many images, always the same scattered ones, are kept in the
    cache when they are first read. The others are decoded each time; what comes out does not depend on the limit.
    """

    def __init__(self, images: Split, spec: str, side: int, limit: int) -> None:
        self.images, self.side = images, side
        self.labels = labels_of(images)
        self.folder = cache_folder() / "resized"
        self.mark = f"{spec} {side} {getattr(images, 'reading', '')} {_stamp(Path(spec.partition(':')[2] or spec))}"
        self.kept = frozenset(chosen(len(images), limit // (6 * side * side)))  # 3 channels, sides up to 1 to 2
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExciteError(
                f"cannot make {self.folder}: {error.strerror}; EXCITE_CACHE names another place"
            ) from None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index not in self.kept:
            return self._resized(index), self.labels[index]
        name = self.name(index)
        key = hashlib.sha256(f"{self.mark} {name} {_stamp(Path(name))}".encode(errors="replace")).hexdigest()
        file = self.folder / key[:2] / f"{key[2:]}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):  # not there yet, or damaged
            stored = np.load(file, allow_pickle=False)
            if stored.dtype == np.uint8 and stored.ndim == 3 and len(stored) == 3:
                return torch.from_numpy(stored), self.labels[index]
        pixels = self._resized(index)
        temporary = file.with_name(f".{secrets.token_hex(4)}.part")
        with contextlib.suppress(OSError):  # a full disk: the image is decoded again next time
            file.parent.mkdir(exist_ok=True)
            try:
                with temporary.open("wb") as opened:
                    np.save(opened, pixels.numpy())
                os.replace(temporary, file)
            finally:
                temporary.unlink(missing_ok=True)
        return pixels, self.labels[index]

    def _resized(self, index: int) -> Tensor:
        image, _ = self.images[index]
        pixels = image if isinstance(image, Tensor) else tv.pil_to_tensor(image)
        return pixels if min(pixels.shape[1:]) <= self.side else tv.resize(pixels, [self.side], antialias=True)

    def name(self, index: int) -> str:
        """Say where image `index` comes from."""
        return self.images.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """Return the width and height of the original. Raises UnreadableImageError."""
        return self.images.size(index)

    def take(self, indices: Sequence[int]) -> "ResizedImages":
        """Return these images alone; of them those are kept that are kept here."""
        other = object.__new__(ResizedImages)
        other.images, other.side, other.folder, other.mark = (
            self.images.take(indices),
            self.side,
            self.folder,
            self.mark,
        )
        other.labels = [self.labels[i] for i in indices]
        other.kept = frozenset(new for new, old in enumerate(indices) if old in self.kept)
        return other


def _stamp(path: Path) -> str:
    """Return what changes when a file is replaced; nothing for what is no file or folder."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
