"""Images to pixels in [0, 1], and pixels to what a network wants."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from excite.data import Images
from excite.errors import UsageError


def to_pixels(image: Any, preprocess: Mapping[str, Any]) -> torch.Tensor:
    """Return `[c size size]` in [0, 1]: the shorter side resized to `resize`, then the central square.

    image: a PIL image or a uint8 tensor `[c h w]`.
    """
    size, resize = int(preprocess["size"]), int(preprocess.get("resize") or preprocess["size"])
    pixels = tv.to_dtype(tv.to_image(image), torch.float32, scale=True)
    if min(pixels.shape[1:]) != resize:
        pixels = tv.resize(pixels, [resize], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    if tuple(pixels.shape[1:]) != (size, size):
        pixels = tv.center_crop(pixels, [size, size])
    return torch.as_tensor(pixels).clamp(0, 1)


def normalise(pixels: torch.Tensor, preprocess: Mapping[str, Any], in_channels: int = 3) -> torch.Tensor:
    """Return `(pixels - mean) / std` for `[n c h w]`; colours become grey for networks with one channel.

    Raises UsageError where the statistics or the network have another number of channels.
    """
    if in_channels == 1 and pixels.shape[1] == 3:
        pixels = tv.rgb_to_grayscale(pixels)
    if in_channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(preprocess[k], dtype=pixels.dtype, device=pixels.device) for k in ("mean", "std"))
    if pixels.shape[1] != in_channels or len(mean) not in (1, in_channels):
        raise UsageError(
            f"the network takes {in_channels} channels with {len(mean)} statistics; the images have {pixels.shape[1]}"
        )
    return (pixels - mean[:, None, None]) / std[:, None, None]


def batches(
    images: Images, preprocess: Mapping[str, Any], in_channels: int = 3, size: int = 64, indices: Sequence[int] = ()
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (normalised images `[n c h w]`, labels `[n]`) of `indices` (default: all)."""
    chosen = list(indices) or list(range(len(images)))
    for start in range(0, len(chosen), size):
        pairs = [images[i] for i in chosen[start : start + size]]
        pixels = torch.stack([to_pixels(image, preprocess) for image, _ in pairs])
        yield normalise(pixels, preprocess, in_channels), torch.tensor([label for _, label in pairs])
