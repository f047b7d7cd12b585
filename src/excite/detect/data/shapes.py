"""Shapes: discs, squares, triangles and rings drawn on the fly, with boxes and masks. No file is needed."""

import numpy as np
from PIL import Image

from excite.common.options import parse_pairs
from excite.detect.data.base import Annotation, DetectionDataset, Sample
from excite.detect.data.segments import encode
from excite.errors import UsageError, unknown

NAMES = ("disc", "square", "triangle", "ring")
SPLITS = ("train", "val", "test")
Drawing = tuple[Image.Image, list[np.ndarray], list[int]]
SEEDS = {name: number for number, name in enumerate(SPLITS)}


class Shapes(DetectionDataset):
    """`count` images of `size` pixels with 1 to `most` shapes each; the same seed draws the same images.

    Shapes may cover each other; masks and boxes show what is visible, and a shape of which less than 40 % is visible is
    drawn elsewhere instead.
    """

    def __init__(
        self, split: str = "train", *, count: int = 1000, size: int = 128, most: int = 4, seed: int = 0
    ) -> None:
        if split not in SPLITS:
            raise unknown("split of shapes", split, SPLITS)
        if count < 1 or size < 32 or most < 1:
            raise UsageError(f"shapes: count {count}, size {size}, most {most}; at least 1 image, 32 pixels, 1 shape")
        self.size, self.most, self.seed, self.split = size, most, seed, split
        self._last: tuple[int, Drawing] | None = None
        samples = [_Drawn(f"{i:05d}", size, size, index=i, owner=self) for i in range(count)]
        super().__init__(samples, NAMES, has_masks=True)

    def draw(self, index: int) -> Drawing:
        """Return image number `index`, the visible mask of each shape, and the labels (from 1)."""
        if self._last is None or self._last[0] != index:
            self._last = (index, self._draw(index))
        return self._last[1]

    def _draw(self, index: int) -> Drawing:
        rng = np.random.default_rng([self.seed, SEEDS[self.split], index])
        canvas = _background(rng, self.size)
        masks: list[np.ndarray] = []
        labels: list[int] = []
        for _ in range(int(rng.integers(1, self.most + 1))):
            for _attempt in range(20):
                label = int(rng.integers(1, len(NAMES) + 1))
                mask = _outline(rng, NAMES[label - 1], self.size)
                left = [m & ~mask for m in masks]
                if mask.any() and all(new.sum() >= 0.4 * full.sum() for new, full in zip(left, masks, strict=True)):
                    masks = [*left, mask]
                    labels.append(label)
                    _paint(rng, canvas, mask)
                    break
        noise = rng.normal(0, 6, canvas.shape)
        picture = Image.fromarray(np.clip(canvas + noise, 0, 255).astype(np.uint8))
        return picture, masks, labels

    def image(self, index: int) -> Image.Image:
        """Return image number `index`."""
        sample = self.samples[index]
        assert isinstance(sample, _Drawn)
        return self.draw(sample.index)[0]


class _Drawn(Sample):
    """A sample whose objects are drawn when they are first asked for."""

    def __init__(self, image_id: str, width: int, height: int, *, index: int, owner: Shapes) -> None:
        super().__init__(image_id, width, height)
        self.index, self.owner = index, owner
        self._drawn = False

    @property
    def annotations(self) -> list[Annotation]:
        """The objects of the drawing."""
        if not self._drawn:
            _, masks, labels = self.owner.draw(self.index)
            self._annotations = [_annotation(mask, label) for mask, label in zip(masks, labels, strict=True)]
            self._drawn = True
        return self._annotations


def _annotation(mask: np.ndarray, label: int) -> Annotation:
    ys, xs = np.nonzero(mask)
    x, y = float(xs.min()), float(ys.min())
    box = (x, y, float(xs.max()) + 1 - x, float(ys.max()) + 1 - y)
    # Run lengths take a hundredth of the room of the mask, so all objects of a set can be kept.
    return Annotation(box, label, float(mask.sum()), segment=encode(mask.astype(np.uint8), *mask.shape))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A gradient between two dull colours, `[h w 3]`."""
    a, b = rng.uniform(40, 215, (2, 3))
    b = 0.6 * a + 0.4 * b
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:size, 0:size] / size - 0.5
    t = (np.cos(angle) * xs + np.sin(angle) * ys + 0.71) / 1.42
    return a + (b - a) * t[..., None]


def _outline(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """The filled form of a shape somewhere in the image, bool `[h w]`."""
    radius = rng.uniform(0.09, 0.24) * size
    cx, cy = rng.uniform(radius, size - radius, 2)
    turn = rng.uniform(0, 2 * np.pi)
    ys, xs = np.ogrid[0:size, 0:size]
    dx, dy = xs + 0.5 - cx, ys + 0.5 - cy
    if name in ("disc", "ring"):
        squared = dx * dx + dy * dy
        return (squared <= radius**2) & (squared >= (0.55 * radius) ** 2 if name == "ring" else True)
    corners = 4 if name == "square" else 3
    normals = turn + 2 * np.pi * np.arange(corners) / corners
    reach = radius * np.cos(np.pi / corners)  # from the centre to a side
    return np.logical_and.reduce([np.cos(t) * dx + np.sin(t) * dy <= reach for t in normals])


def _paint(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray) -> None:
    """Fill `mask` on `canvas` with a colour that can be told from what lies below."""
    below = canvas[mask].mean(0)
    for _ in range(50):
        colour = rng.uniform(0, 255, 3)
        if np.abs(colour - below).sum() > 150:
            break
    canvas[mask] = colour


def shapes_options(text: str) -> dict[str, int]:
    """Read "size=96,most=3" into options. Raises UsageError for unknown names and for what is not a whole number."""
    known = ("size", "most", "seed", "train", "val", "test")
    options = parse_pairs([pair for pair in text.split(",") if pair])
    for name, value in options.items():
        if name not in known:
            raise unknown("option of shapes", name, known)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(f"shapes: {name}={value!r}; expected a whole number")
    return options
