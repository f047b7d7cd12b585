"""Bytes or file -> RGB image, whatever the mode it is stored in; errors name the image."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from excite.errors import ExciteError


class UnreadableImageError(ExciteError):
    """An image that cannot be decoded; the message names it and says what can be done."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"cannot read image {name}: {reason}; repair or remove it, or go on with --skip-unreadable")


def read_rgb(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """Decode an image fully (a truncated one is found here, not later). Raises UnreadableImageError."""
    label = name or str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(source, bytes):  # Pillow names its own buffer object, which tells nobody anything
            reason = reason.split(" <_io")[0]
        raise UnreadableImageError(label, reason) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return 3 channels: grey is repeated (16 bits scaled to 8), transparency is laid over white."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(np.asarray(image))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey(pixels: np.ndarray[Any, Any]) -> Image.Image:
    """16-bit greys keep their range / 256; other wide types are clipped to 0-255."""
    values = pixels.astype(np.float64)
    if values.max(initial=0) > 255:
        values = values / 256
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
