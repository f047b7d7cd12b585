"""JPEG files for training without Pillow's detours: the same pixels, sooner.

Pillow, torchvision and simplejpeg (extra `jpeg`, the fastest) all decode with libjpeg-turbo.
"""

import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from excite.data.preprocess import orientation

START, END = b"\xff\xd8\xff", b"\xff\xd9"


def decode(source: str | Path | bytes, least: int | None = None) -> Tensor | None:
    """Return a JPEG as uint8 `[3 h w]`; None for what Pillow had better read: other formats, damaged, turned, large.

    least: pixels that the shorter side must keep; Pillow decodes an image of twice as many at a part of its size.
    """
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not content.startswith(START) or not content.rstrip(b"\0").endswith(END):
            return None
        with Image.open(io.BytesIO(content)) as image:
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation(image) == 1
            if not plain or (least is not None and min(image.size) >= 2 * least):
                return None
        if _has_simplejpeg():
            import simplejpeg

            return torch.from_numpy(simplejpeg.decode_jpeg(content, "RGB")).permute(2, 0, 1)
        return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except Exception:  # Pillow says what is wrong with it
        return None


@cache
def _has_simplejpeg() -> bool:
    return find_spec("simplejpeg") is not None
