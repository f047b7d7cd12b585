"""How a file or array becomes a normalised tensor: the one answer for training, testing, explaining and exporting.

Reading gives 8-bit RGB; `Preprocess.image` resizes and crops it; `Preprocess.normalise` makes what a network takes.
"""

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageSequence
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from excite.card import Preparation
from excite.common.files import check_file
from excite.errors import ExciteError, UsageError

if TYPE_CHECKING:
    from excite.data.bundle import Images
    from excite.models import NetworkSpec

# Any: an entry of a card, which has been checked.

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LUMA = (19595, 38470, 7471)  # of 65536: ITU-R BT.601, as Pillow rounds it; sums of 8-bit values are exact in float32
RGB = (1, 3)  # channels of networks that are made of RGB
ARRAY = ".npy"
MOST_PIXELS = 2**28  # of an image enlarged to the shorter side asked for: a strip of 1 x 100000 pixels has more

Array = np.ndarray
AnyImages = TypeVar("AnyImages")
Readable = str | Path | bytes | Image.Image | Array | Tensor

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(ExciteError):
    """An image that cannot be decoded; the message names it and says what can be done."""

    option = "skip_unreadable"

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"cannot read image {name}: {reason}; repair or remove it")


Window = tuple[float, float]


def read_rgb(
    source: Readable,
    name: str | None = None,
    *,
    upright: bool = True,
    window: Window | None = None,
    least: int | None = None,
) -> Image.Image:
    """Return an 8-bit RGB image of a file, its bytes, a PIL image, or an array `[h w]`, `[h w c]`, tensor `[c h w]`.

    upright: turn it as its EXIF orientation says. Grey is repeated, transparency is laid over white. 16-bit samples
    keep their high byte (so do those that Pillow holds as 32-bit integers, 0 to 65535); floats are 0 (black) to 1
    (white).
    window: the samples of more than 8 bits that become black and white instead; what lies outside is cut off.
    least: pixels that the shorter side must keep: a JPEG that is larger twofold or more is decoded at a half, a quarter
    or an eighth of its size, which is faster; others keep their bits.
    name: what messages call it. Raises UnreadableImageError, for a truncated, a huge or an out-of-range image too.
    """
    label = name or (str(source) if isinstance(source, str | Path) else "in memory")
    try:
        if isinstance(source, str | Path) and Path(source).suffix.lower() == ARRAY:
            source = np.load(source, allow_pickle=False)
        if isinstance(source, Tensor):
            source = source.detach().cpu().movedim(0, -1).numpy() if source.dim() == 3 else source.cpu().numpy()
        if isinstance(source, np.ndarray):
            return _of_array(source, window)
        if isinstance(source, Image.Image):
            source.load()  # turns a TIFF, and forgets that it was turned
            return _rgb(_turned(source) if upright else source, window)
        if not isinstance(source, bytes):
            check_file(Path(source))
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if not upright and image.format == "TIFF":
                image.getexif().pop(ExifTags.Base.Orientation, None)  # Pillow turns this format alone by itself
            if least is not None and image.format == "JPEG":
                short = min(image.size)
                image.draft(None, tuple(-(-side * least // short) for side in image.size))  # type: ignore[arg-type]  # two
            image.load()
            return _rgb(_turned(image) if upright else image, window)
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(source, bytes):  # Pillow names its own buffer object, which tells nobody anything
            reason = reason.split(" <_io")[0]
        raise UnreadableImageError(label, reason) from error


def read_channels(source: Readable, channels: int, name: str | None = None, *, window: Window | None = None) -> Tensor:
    """Return an image of any number of channels, uint8 `[channels h w]`.

    source: a .npy file `[h w c]` or `[c h w]`, a TIFF with a page per channel, another image with so many channels, or
    the like in memory. window: as in `read_rgb`. Raises UnreadableImageError, also for another number of channels.
    """
    label = name or (str(source) if isinstance(source, str | Path) else "in memory")
    try:
        values = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
        if not isinstance(values, np.ndarray):
            values = _samples(values)
        if values.ndim == 3 and values.shape[2] == channels:
            values = np.moveaxis(values, 2, 0)
        if values.ndim != 3 or len(values) != channels:
            raise ValueError(f"its samples have the shape {list(values.shape)}; expected {channels} channels")
        return torch.from_numpy(np.ascontiguousarray(_eight_bits(values, window)))
    except Exception as error:  # as in `read_rgb`
        raise UnreadableImageError(label, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _samples(source: str | Path | bytes | Image.Image) -> Array:
    """Return the samples of a .npy file, of the pages of an image `[pages h w]`, or of its one page `[h w c]`."""
    if isinstance(source, Image.Image):
        return np.asarray(source)
    if not isinstance(source, bytes) and Path(source).suffix.lower() == ARRAY:
        return np.load(source, allow_pickle=False)
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    return pages[0] if len(pages) == 1 else np.stack(pages)


def luma(values: Tensor) -> Tensor:
    """Return the brightness `[n 1 h w]` of colours in 0-255, float `[n 3 h w]`."""
    red, green, blue = (weight * values[:, i : i + 1] for i, weight in enumerate(LUMA))
    return (red + green + blue) / 65536


def stored_size(source: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """Return the width and height of an encoded image as it is seen, upright, without decoding it.

    Raises UnreadableImageError for what does not begin as an image.
    """
    try:
        if not isinstance(source, bytes) and Path(source).suffix.lower() == ARRAY:
            *_, height, width = sorted(np.load(source, mmap_mode="r", allow_pickle=False).shape)
            return width, height
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            return (height, width) if orientation(image) >= 5 else (width, height)
    except Exception as error:  # as in `read_rgb`
        raise UnreadableImageError(name or str(source), str(error) or type(error).__name__) from error


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where there is none or it is broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF data spoils no picture
        return 1
    return value if value in TURNS else 1


def _turned(image: Image.Image) -> Image.Image:
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, window: Window | None = None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _of_array(np.asarray(image), window)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = image.convert("RGB")
    rgb.info = {}  # it is upright now, whatever the file's EXIF data say
    return rgb


def _of_array(values: Array, window: Window | None = None) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or not values.size or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError(
            f"an array of shape {list(values.shape)} is no image; expected h w, or h w with 1, 3 or 4 channels"
        )
    return _rgb(Image.fromarray(np.ascontiguousarray(_eight_bits(values, window))))


def _eight_bits(values: Array, window: Window | None = None) -> Array:
    """Bring samples to 0-255 by the window, or by the range of their type; never by their own extremes."""
    kind = values.dtype
    if kind == np.uint8:
        return values
    if kind == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = float(values.min()), float(values.max())
    if window is not None:
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("some of its samples are not finite (nan, inf)")
        share = (values.astype(np.float64) - window[0]) / (window[1] - window[0])
        return np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    if kind.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"its floats run from {low:g} to {high:g}; expected 0 (black) to 1 (white), or say what is black and "
                "white with --window LOW HIGH"
            )
        return np.rint(values * 255).astype(np.uint8)
    if kind.kind not in "iu" or kind.itemsize < 2 or low < 0 or high > 65535:
        raise ValueError(
            f"its {kind} samples run from {low:g} to {high:g}; expected 16 bits, 0 to 65535; "
            "--window LOW HIGH takes others"
        )
    return (values >> 8).astype(np.uint8)


@dataclass(frozen=True)
class Reading:
    """How the images of a data set become RGB, or other channels: `read_rgb`, `read_channels` with these options.

    decode: tried first for files and their bytes; what it gives None for is read as ever.
    """

    window: Window | None = None
    least: int | None = None
    channels: int = 3
    decode: Callable[[str | Path | bytes, int | None], Tensor | None] | None = None

    def __call__(self, source: Readable, name: str | None = None) -> Image.Image | Tensor:
        """Return an 8-bit RGB image, or uint8 `[channels h w]` where there are others. Raises UnreadableImageError."""
        if self.channels not in RGB:
            return read_channels(source, self.channels, name, window=self.window)
        if self.decode is not None and isinstance(source, str | Path | bytes):
            pixels = self.decode(source, self.least)
            if pixels is not None:
                return pixels
        return read_rgb(source, name, window=self.window, least=self.least)


def read_as(images: AnyImages, reading: Reading) -> AnyImages:
    """Return a split whose files are read in this way; images that are no files stay as they are."""
    if not hasattr(images, "reading"):
        return images
    other = copy.copy(images)
    other.reading = reading
    return other


@dataclass(frozen=True)
class Preprocess:
    """How images are prepared: shorter side to `resize`, central square of `size` pixels, mean and deviation removed.

    mean, std: per channel, of values in [0, 1]; channels: 3 (RGB), 1 (luma of RGB), or the files' own; window: the
    samples of more than 8 bits that become black and white.
    """

    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    window: Window | None = None

    @classmethod
    def usual(cls, channels: int = 3) -> "Preprocess":
        """Return ImageNet's: 224 of 256 pixels."""
        return cls(224, 256, IMAGENET_MEAN[:channels], IMAGENET_STD[:channels], channels)

    @classmethod
    def for_images_of(cls, side: int) -> "Preprocess":
        """Return CIFAR's statistics for small images, whole, of `side` pixels; ImageNet's for those above 64."""
        return cls(side, side, CIFAR_MEAN, CIFAR_STD) if side <= 64 else cls.usual()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], channels: int = 3) -> "Preprocess":
        """Read what a card says. Of three statistics a network with one channel takes the first.

        Raises ExciteError for sizes and statistics that are none, UsageError for less than one channel.
        """
        if channels < 1:
            raise UsageError(f"images have one channel or more; the network takes {channels}")
        try:
            size = int(values["size"])
            resize = int(values.get("resize") or size)
            mean, std = (tuple(float(v) for v in values[key]) for key in ("mean", "std"))
        except (KeyError, TypeError, ValueError) as error:
            raise ExciteError(f"{dict(values)} does not say how images are prepared ({error!r})") from error
        mean, std = (s * channels if len(s) == 1 else s[: max(channels, 1)] for s in (mean, std))
        if not len(mean) == len(std) == channels or min(std) <= 0 or not 1 <= size <= resize:
            raise ExciteError(f"{dict(values)} cannot prepare images for a network with {channels} channels")
        window = values.get("window")
        return cls(size, resize, mean, std, channels, None if window is None else (float(window[0]), float(window[1])))

    @classmethod
    def of(cls, card: "NetworkSpec") -> "Preprocess":
        """Return what a network's card says. Raises ExciteError where it says nothing."""
        if not card.preprocess:
            raise ExciteError(f"the card of {card.name} does not say how images are prepared")
        return cls.from_dict(card.preprocess, card.in_channels)

    def to_dict(self) -> Preparation:
        """Return what a card keeps."""
        card: Preparation = {
            "size": self.size,
            "resize": self.resize,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.window is not None:
            card["window"] = list(self.window)
        return card

    def read(self, images: AnyImages) -> AnyImages:
        """Return a split whose files are read with this window."""
        return images if self.reading() == Reading() else read_as(images, self.reading())

    def reading(self, least: int | None = None) -> Reading:
        """Return how files are read for this preparation."""
        return Reading(self.window, least, self.planes)

    @property
    def planes(self) -> int:
        """The channels of images before they are normalised: 3 where the network takes colours or their luma."""
        return 3 if self.channels in RGB else self.channels

    def at(self, size: int | None) -> "Preprocess":
        """Return the same for another size (None: as it is), the shorter side in proportion."""
        return self if size is None else replace(self, size=size, resize=round(self.resize * size / self.size))

    def image(self, source: Readable, name: str | None = None) -> Tensor:
        """Return the resized central square, uint8 `[3 size size]`, of whatever `read_rgb` reads.

        Networks with other channels than 1 and 3 get `[channels size size]` of what `read_channels` reads. A uint8
        tensor `[channels h w]` is taken as it is. Raises UnreadableImageError.
        """
        name = name or (str(source) if isinstance(source, str | Path) else "in memory")
        if (
            isinstance(source, Tensor)
            and source.dtype == torch.uint8
            and source.dim() == 3
            and len(source) == self.planes
        ):
            pixels = source
        elif self.channels not in RGB:
            pixels = read_channels(source, self.channels, name, window=self.window)
        else:
            pixels = tv.pil_to_tensor(read_rgb(source, name, window=self.window))
        short, long = sorted(pixels.shape[1:])
        if short < 1 or self.resize * self.resize * long > MOST_PIXELS * short:
            raise UnreadableImageError(name, f"{short} x {long} pixels is too long a strip to enlarge")
        return tv.center_crop(tv.resize(pixels, [self.resize], antialias=True), [self.size, self.size])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation `[1 channels 1 1]` of values in 0-255."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in (self.mean, self.std))
        return mean, std

    def normalise(self, images: Tensor) -> Tensor:
        """Return what the network takes, float32 `[n channels h w]`.

        images: `[n 3 h w]`, uint8, or float in [0, 1].
        """
        mean, std = (values.to(images.device) for values in self.statistics())
        values = images.float() if images.dtype == torch.uint8 else images.float() * 255
        return ((luma(values) if self.channels == 1 else values) - mean) / std

    def batches(
        self, images: "Images", indices: Sequence[int] | None = None, size: int = 32
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (normalised images `[n channels size size]`, labels `[n]`) of a data set's split, or of some indices.

        Raises UnreadableImageError.
        """
        images = self.read(images)
        chosen = range(len(images)) if indices is None else indices
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            pairs = [images[i] for i in part]
            pixels = [self.image(image, images.name(i)) for i, (image, _) in zip(part, pairs, strict=True)]
            yield self.normalise(torch.stack(pixels)), torch.tensor([label for _, label in pairs])

    def batch(self, sources: Sequence[Readable]) -> Tensor:
        """Return images, read and normalised, float32 `[n channels size size]`. Raises UnreadableImageError."""
        return self.normalise(torch.stack([self.image(source) for source in sources]))
