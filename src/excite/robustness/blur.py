"""Blur: out of focus, behind frosted glass, by motion, by zooming."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.filters import filter2d

Image = torch.Tensor  # [3 h w] in [0, 1]


def to_8_bits(x: torch.Tensor) -> torch.Tensor:
    """Return `x` cut down to the 256 levels of stored images, as the published code does (it does not round)."""
    return (x.clamp(0, 1) * 255 + 1e-4).floor() / 255


def gaussian(x: torch.Tensor, sigma: float, *, truncate: float = 4, border: str = "replicate") -> torch.Tensor:
    """Return `[c h w]` blurred by a Gaussian of `sigma` pixels that ends after `truncate` deviations.

    border: "replicate" (the last pixel), "reflect" (mirrored at it) or "symmetric" (mirrored behind it).
    """
    radius = int(truncate * sigma + 0.5)
    if radius < 1:
        return x
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-(taps**2) / (2 * sigma**2))
    line = (line / line.sum()).to(x.dtype)
    wide = pad(x, radius, border)[:, None]
    return F.conv2d(F.conv2d(wide, line[None, None, :, None]), line[None, None, None])[:, 0]


def pad(x: torch.Tensor, by: int, border: str) -> torch.Tensor:
    """Return `[c h w]` with `by` more pixels on every side."""
    if border == "replicate":
        return F.pad(x[None], (by,) * 4, mode="replicate")[0]
    for dim in (1, 2):
        size = x.shape[dim]
        index = torch.arange(-by, size + by)
        period, shift = (2 * size, 1) if border == "symmetric" else (2 * (size - 1), 0)
        index = index % period
        x = x.index_select(dim, torch.where(index < size, index, period - index - shift))
    return x


def defocus_blur(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Convolve with a disk of `radius` pixels whose edge is smoothed by 3 (large disks: 5) taps of a Gaussian."""
    radius, sigma = constants[0] * scale, constants[1] * scale
    reach, taps = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    reach = min(reach, min(x.shape[1:]) - 1)
    line = torch.arange(-reach, reach + 1, dtype=x.dtype)
    disk = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).to(x.dtype)
    # Not normalised again: mirroring the cut disk of radius 8 makes the published image 1 % brighter.
    kernel = gaussian(disk[None] / disk.sum(), sigma, truncate=taps / sigma, border="reflect")
    return filter2d(x[None], kernel, border_type="reflect")[0]


def glass_blur(x: Image, constants: tuple[float, int, int], scale: float, generator: torch.Generator) -> Image:
    """Blur by `sigma`, let pixels take the colour of others within `reach` for some rounds, blur again.

    As the published code runs, not as it reads: its swap copies, pixel after pixel from the lower right corner, so a
    pixel may take what an earlier one has taken.
    """
    sigma, reach, rounds = constants[0] * scale, max(1, round(constants[1] * scale)), constants[2]
    x = to_8_bits(gaussian(x, sigma))
    _, h, w = x.shape
    place = torch.arange(h * w).view(h, w)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    inside = (rows > reach) & (rows <= h - reach) & (columns > reach) & (columns <= w - reach)
    inside &= (rows < h) & (columns < w)
    for _ in range(rounds):
        moves = torch.randint(-reach, reach, (2, h, w), generator=generator)
        source = torch.where(inside, place + moves[0] * w + moves[1], place).flatten()
        # A source that comes later in the image was replaced before: follow it to the pixel that was still its own.
        replaced = inside.flatten()[source] & (source > place.flatten())
        while bool(replaced.any()):
            source, replaced = torch.where(replaced, source[source], source), replaced & replaced[source]
        x = x.flatten(1)[:, source].view_as(x)
    return gaussian(x, sigma)


def streak(x: torch.Tensor, radius: float, sigma: float, angle: float) -> torch.Tensor:
    """Return `[c h w]` moved along `angle` (radians): a one-sided Gaussian of `sigma`, `2 radius + 1` pixels long."""
    taps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    dx, dy = (
        torch.ceil(taps * math.cos(angle) - 0.5).long().tolist(),
        torch.ceil(taps * math.sin(angle) - 0.5).long().tolist(),
    )
    h, w = x.shape[1:]
    reach = max(abs(d) for d in (*dx, *dy))
    wide = pad(x, reach, "replicate")
    out = torch.zeros_like(x)
    for weight, i, j in zip(weights.tolist(), dy, dx, strict=True):
        out += weight * wide[:, reach + i : reach + i + h, reach + j : reach + j + w]
    return out


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Return one number drawn between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def motion_blur(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Move the image along a random direction within 45 degrees of the horizontal."""
    radius, sigma = constants
    return streak(x, radius * scale, sigma * scale, math.radians(uniform(-45, 45, generator)))


def zoomed(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Return `x` `[c h w]` enlarged about its centre by `factor`: the centre is cut out and interpolated."""
    sides = x.shape[1:]
    cut = [math.ceil(side / factor) for side in sides]
    top, left = ((side - c) // 2 for side, c in zip(sides, cut, strict=True))
    centre = x[:, top : top + cut[0], left : left + cut[1]]
    size = [max(round(c * factor), side) for c, side in zip(cut, sides, strict=True)]
    large = F.interpolate(centre[None], size, mode="bilinear", align_corners=True)[0]
    top, left = ((s - side) // 2 for s, side in zip(size, sides, strict=True))
    return large[:, top : top + sides[0], left : left + sides[1]]


def zoom_blur(x: Image, factors: Sequence[float], scale: float, generator: torch.Generator) -> Image:
    """Average the image and its enlargements."""
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)
