"""What every detection data set is: images, boxes, and what had to be left out."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors

from excite.data.preprocess import UnreadableImageError, read_rgb
from excite.detect.data.segments import Segment, decode
from excite.errors import ExciteError, UsageError


class Target(TypedDict):
    """What is known of an image; boxes: x1 y1 x2 y2 in pixels, `[n 4]`; labels: from 1, `[n]`; masks: `[n h w]`."""

    boxes: torch.Tensor
    labels: torch.Tensor
    ignored: torch.Tensor
    image_id: int | str
    masks: NotRequired[torch.Tensor]


Item = tuple[torch.Tensor, Target]


@dataclass
class Annotation:
    """One annotated object.

    box: x, y, width, height in pixels; label: from 1; area: pixels; crowd: COCO's region of many; difficult: VOC's.
    """

    box: tuple[float, float, float, float]
    label: int
    area: float
    crowd: bool = False
    difficult: bool = False
    segment: Segment | None = None

    @property
    def ignored(self) -> bool:
        """Whether it is neither trained on nor counted as missed."""
        return self.crowd or self.difficult


class Sample:
    """One image: its id, size in pixels, where it comes from, and its objects."""

    def __init__(
        self,
        image_id: int | str,
        width: int,
        height: int,
        path: Path | None = None,
        annotations: Iterable[Annotation] = (),
    ) -> None:
        self.image_id, self.width, self.height, self.path = image_id, width, height, path
        self._annotations = list(annotations)

    @property
    def annotations(self) -> list[Annotation]:
        """The objects of the image."""
        return self._annotations


class DetectionDataset(Dataset[Item]):
    """Images and objects with their names.

    `[i]` is `(image, target)`: image uint8 `[3 h w]` (or what the transform makes of it); target holds `boxes` float
    `[n 4]` (x1 y1 x2 y2, pixels), `labels` `[n]` from 1, `ignored` `[n]`, `image_id`, and `masks` `[n h w]` where
    `with_masks`. skipped: one sentence per annotation that was left out, with its place.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: Sequence[str],
        *,
        category_ids: Sequence[int] | None = None,
        skipped: Sequence[str] = (),
        has_masks: bool = False,
    ) -> None:
        self.samples = list(samples)
        self.class_names = list(class_names)
        self.category_ids = list(category_ids) if category_ids is not None else list(range(1, len(class_names) + 1))
        self.skipped = list(skipped)
        self.has_masks = has_masks
        self.with_masks = False
        self.transform: Callable[[torch.Tensor, Target], Item] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Image.Image:
        """Return image number `index`, turned as its annotation means it.

        Annotation tools show a picture as its EXIF orientation says, so boxes are taken to be of the upright picture;
        where only the stored pixels have the size that the annotation gives, they are of those, and it stays unturned.
        Raises ExciteError when the file is gone, broken or of another size.
        """
        sample = self.samples[index]
        assert sample.path is not None  # images that are drawn come from an `image` of their own
        picture = load_image(sample.path)
        if picture.size == (sample.height, sample.width) != (sample.width, sample.height):
            stored = load_image(sample.path, upright=False)
            picture = stored if stored.size == (sample.width, sample.height) else picture
        if picture.size != (sample.width, sample.height):
            raise ExciteError(
                f"{sample.path}: the image is {picture.size[0]}x{picture.size[1]} pixels, its annotation says "
                f"{sample.width}x{sample.height}"
            )
        return picture

    def mask(self, index: int, annotation: Annotation) -> np.ndarray:
        """Return the mask of one object of image number `index`, uint8 `[h w]`."""
        assert annotation.segment is not None  # `open_split` looks when masks are asked for
        return decode(annotation.segment, self.samples[index].height, self.samples[index].width)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        image = tv_tensors.Image(torch.from_numpy(np.asarray(self.image(index)).copy()).permute(2, 0, 1))
        annotations = sample.annotations
        size = (sample.height, sample.width)
        xywh = torch.tensor([a.box for a in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor([a.label for a in annotations], dtype=torch.int64),
            "ignored": torch.tensor([a.ignored for a in annotations], dtype=torch.bool),
            "image_id": sample.image_id,
        }
        if self.with_masks:
            masks = [torch.from_numpy(self.mask(index, a)) for a in annotations]
            stacked = torch.stack(masks) if masks else torch.zeros((0, *size), dtype=torch.uint8)
            target["masks"] = tv_tensors.Mask(stacked)
        return self.transform(image, target) if self.transform is not None else (image, target)

    def subset(self, count: int | None) -> "DetectionDataset":
        """Keep the first `count` images (None: all of them); returns itself."""
        if count is not None:
            if count < 1:
                raise UsageError(f"a limit of {count} images; it must be at least 1")
            self.samples = self.samples[:count]
        return self

    def drop_unreadable(self) -> "DetectionDataset":
        """Read every image once and leave out those that cannot be read, as `skipped` tells; returns itself.

        Raises ExciteError where none is left.
        """

        def problem(index: int) -> str | None:
            try:
                self.image(index)
            except ExciteError as error:
                return str(error)
            return None

        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(problem, range(len(self))))
        self.samples = [s for s, reason in zip(self.samples, problems, strict=True) if reason is None]
        self.skipped += [reason for reason in problems if reason is not None]
        if not self.samples:
            raise ExciteError(f"no image can be read: {self.skipped[-1]}")
        return self


def load_image(path: Path, *, upright: bool = True) -> Image.Image:
    """Read an image file as RGB, as `read_rgb` does. Raises ExciteError when it is missing or broken."""
    try:
        return read_rgb(path, upright=upright)
    except UnreadableImageError as error:
        if not path.exists():
            raise ExciteError(f"image {path} is missing") from None
        raise ExciteError(f"image {path} cannot be read: {error.reason}") from None


def clip_box(
    box: tuple[float, float, float, float], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Clip x, y, w, h to the image; None where nothing with an area is left, or a number is not finite."""
    x, y, w, h = box
    if not all(map(np.isfinite, box)) or w <= 0 or h <= 0:
        return None
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x2 - x1 <= 0 or y2 - y1 <= 0:
        return None
    if (x1, y1, x2, y2) == (x, y, x + w, y + h):
        return box  # untouched, so that not even the last digit changes
    return (x1, y1, x2 - x1, y2 - y1)


def check_not_empty(dataset: DetectionDataset, where: str) -> DetectionDataset:
    """Return the data set; raises UsageError when it has no image."""
    if not dataset.samples:
        raise UsageError(f"{where} has no images")
    return dataset
