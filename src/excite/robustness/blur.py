"""Blur: out of focus, behind frosted glass, by motion, by zooming."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.filters import filter2d, gaussian_blur2d

Image = torch.Tensor  # [3 h w] in [0, 1]


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return `[c h w]` blurred by a Gaussian of `sigma` pixels, with mirrored borders."""
    if sigma < 0.15:  # its neighbours would weigh less than 1e-9
        return x
    radius = min(max(1, math.ceil(3 * sigma)), min(x.shape[1:]) - 1)
    return gaussian_blur2d(x[None], (2 * radius + 1, 2 * radius + 1), (sigma, sigma), border_type="reflect")[0]


def defocus_blur(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Convolve with a disk of `radius` pixels whose edge is smoothed by a Gaussian of `sigma`."""
    radius, sigma = constants[0] * scale, constants[1] * scale
    reach = min(math.ceil(radius + 3 * sigma), min(x.shape[1:]) - 1)
    line = torch.arange(-reach, reach + 1, dtype=x.dtype)
    disk = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).to(x.dtype)
    kernel = gaussian(disk[None], sigma)
    return filter2d(x[None], kernel, border_type="reflect", normalized=True)[0]


def glass_blur(x: Image, constants: tuple[float, float, int], scale: float, generator: torch.Generator) -> Image:
    """Blur by `sigma`, let pixels change places within `reach` for some rounds, blur again.

    All pixels move at once, by a uniform distance rounded to pixels (a reach below 1 moves some of them); in the
    published code they are swapped one after the other.
    """
    sigma, reach, rounds = constants[0] * scale, max(0.55, constants[1] * scale), constants[2]
    x = gaussian(x, sigma)
    _, h, w = x.shape
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    for _ in range(rounds):
        moves = ((torch.rand(2, h, w, generator=generator) * 2 - 1) * reach).round().long()
        x = x[:, (rows + moves[0]).clamp(0, h - 1), (columns + moves[1]).clamp(0, w - 1)]
    return gaussian(x, sigma)


def streak(x: torch.Tensor, radius: float, sigma: float, angle: float) -> torch.Tensor:
    """Return `[c h w]` moved along `angle` (radians): a one-sided Gaussian of `sigma`, `2 radius + 1` pixels long."""
    taps = torch.arange(2 * max(1, round(radius)) + 1, dtype=torch.float64)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    dx, dy = (taps * math.cos(angle)).round().long(), (taps * math.sin(angle)).round().long()
    h, w = x.shape[1:]
    pad = min(int(max(dx.abs().max(), dy.abs().max())), min(h, w) - 1)
    wide = F.pad(x[None], (pad, pad, pad, pad), mode="reflect")[0]
    out = torch.zeros_like(x)
    for weight, i, j in zip(weights.tolist(), dy.tolist(), dx.tolist(), strict=True):
        top, left = pad + max(-pad, min(pad, i)), pad + max(-pad, min(pad, j))
        out += weight * wide[:, top : top + h, left : left + w]
    return out


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Return one number drawn between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def motion_blur(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Move the image along a random direction within 45 degrees of the horizontal."""
    radius, sigma = constants
    return streak(x, radius * scale, sigma * scale, math.radians(uniform(-45, 45, generator)))


def zoomed(x: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Return `[k c h w]`: `x` `[c h w]` enlarged about its centre by each factor."""
    theta = torch.zeros(len(factors), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / torch.tensor(factors)
    many = x[None].expand(len(factors), -1, -1, -1)
    grid = F.affine_grid(theta, list(many.shape), align_corners=False)
    return F.grid_sample(many, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def zoom_blur(x: Image, factors: Sequence[float], scale: float, generator: torch.Generator) -> Image:
    """Average the image and its enlargements."""
    return (x + zoomed(x, factors).sum(0)) / (len(factors) + 1)
