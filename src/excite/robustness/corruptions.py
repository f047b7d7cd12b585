"""The 15 corruption families of ImageNet-C, computed on the fly and reproducibly."""

import zlib
from collections.abc import Callable
from typing import Any

import torch

from excite.errors import UsageError, unknown
from excite.robustness import blur, digital, weather
from excite.robustness.blur import to_8_bits
from excite.robustness.tables import FAMILIES, SEVERITIES, table_for

Corruption = Callable[[torch.Tensor, Any, float, torch.Generator], torch.Tensor]  # Any: each family has its constants

Image = torch.Tensor  # [3 h w] in [0, 1]


def gaussian_noise(x: Image, sigma: float, scale: float, generator: torch.Generator) -> Image:
    """Add normal noise of deviation `sigma`."""
    return x + sigma * torch.randn(x.shape, generator=generator)


def shot_noise(x: Image, photons: float, scale: float, generator: torch.Generator) -> Image:
    """Draw each value from a Poisson distribution; a white pixel has `photons` on average."""
    return torch.poisson(x * photons, generator=generator) / photons


def impulse_noise(x: Image, share: float, scale: float, generator: torch.Generator) -> Image:
    """Set a share of the values to 0 or 1, as likely."""
    hit = torch.rand(x.shape, generator=generator)
    salt = (torch.rand(x.shape, generator=generator) < 0.5).to(x.dtype)
    return torch.where(hit < share, salt, x)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    **{
        name: getattr(module, name)
        for module, names in ((blur, FAMILIES[3:7]), (weather, FAMILIES[7:11]), (digital, FAMILIES[11:]))
        for name in names
    },
}


def corrupt(pixels: torch.Tensor, family: str, severity: int, *, seed: int = 0, index: int = 0) -> torch.Tensor:
    """Return `pixels` `[c h w]` in [0, 1] (c = 1 or 3) corrupted, in [0, 1] and cut down to 8 bits as images are.

    severity: 1-5, of the table for the image's size. What is random depends on `seed`, `family` and `index` (the
    image's number) alone, so it is the same at all severities and in any batch.
    Raises UsageError for unknown families and severities.
    """
    if family not in CORRUPTIONS:
        raise unknown("corruption", family, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity} does not exist; severities are 1 to 5")
    if pixels.dim() != 3 or pixels.shape[0] not in (1, 3) or min(pixels.shape[1:]) < 4:
        raise UsageError(f"corruptions take images [3 h w] or [1 h w] of 4 pixels or more, got {tuple(pixels.shape)}")
    side = min(pixels.shape[1:])
    table = table_for(side)
    grey = pixels.shape[0] == 1
    x = pixels.float().expand(3, -1, -1) if grey else pixels.float()
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {family} {index}".encode()))
    y = CORRUPTIONS[family](x, table.constants[family][severity - 1], side / table.side, generator)
    y = to_8_bits(y)
    return y.mean(0, keepdim=True) if grey else y
