"""Images held decoded in memory as one uint8 tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from excite.data.bundle import Images
from excite.data.preprocess import Preprocess, UnreadableImageError


class ArrayImages:
    """Decoded images [n 3 h w] (uint8) with labels [n]."""

    def __init__(self, images: Tensor, labels: Tensor, names: Sequence[str] | None = None) -> None:
        self.images, self.labels = images, labels
        self._names = names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def name(self, index: int) -> str:
        """Say where image `index` comes from."""
        return self._names[index] if self._names else f"image {index}"

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height, which all images share."""
        return self.images.shape[-1], self.images.shape[-2]

    def take(self, indices: Sequence[int]) -> "ArrayImages":
        """Return these images alone."""
        rows = torch.as_tensor(list(indices), dtype=torch.long)
        return ArrayImages(self.images[rows], self.labels[rows], [self.name(i) for i in indices])


def cache(source: Images, size: int, *, skip: bool = False, channels: int = 3) -> tuple[ArrayImages, list[str]]:
    """Decode all of `source` once, with the shorter side resized to `size` and the central square kept.

    Returns the images and the names of those that could not be read. Raises UnreadableImageError for the first one of
    them unless `skip`.
    """
    if isinstance(source, ArrayImages) and source.images.shape[-2:] == (size, size):
        return source, []
    prepare = Preprocess(size, size, channels=channels)
    images = torch.empty(len(source), channels, size, size, dtype=torch.uint8)
    labels: list[int] = []
    bad: list[str] = []
    for index in range(len(source)):
        try:
            image, label = source[index]
            images[len(labels)] = prepare.image(image, source.name(index))
        except UnreadableImageError as error:
            if not skip:
                raise
            bad.append(error.name)
            continue
        labels.append(label)
    return ArrayImages(images[: len(labels)], torch.tensor(labels, dtype=torch.long)), bad
