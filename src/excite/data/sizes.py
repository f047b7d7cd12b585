"""The size of a network's input: by the median of the data."""

from dataclasses import replace
from statistics import median

from torch import Tensor

from excite.data.bundle import Images, chosen
from excite.data.preprocess import Preprocess, UnreadableImageError
from excite.data.stream import StreamImages

DECODED = 20  # of those that must be decoded for it
LOOKED_AT = 200  # images, always the same scattered ones


def median_side(images: Images) -> int:
    """Return the median of the shorter sides of (some of) the images, in pixels.

    Images that do not tell their size without it are decoded; of a stream the first ones are looked at.
    Raises UnreadableImageError where none can be read.
    """
    if isinstance(images, StreamImages):
        images = images.head(LOOKED_AT)
    size_of = getattr(images, "size", None)
    sides: list[int] = []
    damaged: UnreadableImageError | None = None
    for index in chosen(len(images), LOOKED_AT if size_of else DECODED):
        try:
            sides.append(min(size_of(index) if size_of else _decoded_size(images, index)))
        except UnreadableImageError as error:
            damaged = damaged or error
    if not sides and damaged is not None:
        raise damaged
    return round(median(sides))


def _decoded_size(images: Images, index: int) -> tuple[int, int]:
    image = images[index][0]
    return (image.shape[-1], image.shape[-2]) if isinstance(image, Tensor) else image.size


SMALL_SIDE = 64  # pixels: up to here images are taken whole, and no network of the CIFAR family takes larger ones


def input_size(default: Preprocess, small_network: bool) -> tuple[Preprocess, str]:
    """Return the preparation for a network, and in words why it has this size: one rule for every source.

    Images whose median side is at most 64 pixels are taken as they are. Larger ones are cut to what the network is made
    for: 224 of 256 pixels, or 64 for the small networks of the CIFAR family (`small_network`), where 224 would cost
    twelve times as much.
    """
    if replace(default, window=None) != Preprocess.usual(default.channels):
        return default, "the images' median side" if default.size <= SMALL_SIDE else "the data's own"
    if small_network:
        small = replace(Preprocess.for_images_of(SMALL_SIDE), window=default.window)
        return small, "the most for a network of the CIFAR family"
    return default, "the usual, the images are larger than 64"


def usual_for(images: Images) -> Preprocess:
    """Return the usual preparation of images of this size: small ones whole, larger ones as ImageNet's."""
    return Preprocess.for_images_of(max(median_side(images), 1))
