"""The size of a network's input: by the median of the data."""

from statistics import median

from excite.data.bundle import Split, chosen
from excite.data.preprocess import Preprocess, UnreadableImageError

LOOKED_AT = 200  # images, always the same scattered ones


def median_side(images: Split) -> int:
    """Return the median of the shorter sides of (some of) the images, in pixels; 224 where none can be read."""
    sides = []
    for index in chosen(len(images), LOOKED_AT):
        try:
            sides.append(min(images.size(index)))
        except UnreadableImageError:
            continue
    return round(median(sides)) if sides else 224


def usual_for(images: Split) -> Preprocess:
    """Return the usual preparation of images of this size: small ones whole, larger ones as ImageNet's."""
    return Preprocess.for_images_of(max(median_side(images), 1))
