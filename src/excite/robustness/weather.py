"""Weather: snow, frost, fog, sunlight."""

import math

import torch
import torch.nn.functional as F

from excite.robustness.blur import streak, uniform, zoomed

Image = torch.Tensor  # [3 h w] in [0, 1]
ICE = (0.86, 0.94, 1.0)  # red, green, blue of white ice under a blue sky


def plasma(side: int, decay: float, generator: torch.Generator) -> torch.Tensor:
    """Return a plasma fractal `[side side]` in [0, 1]: octaves of noise, each `decay` times weaker than the last."""
    total = torch.zeros(1, 1, side, side)
    for octave in range(1, math.ceil(math.log2(side)) + 1):
        noise = torch.rand(1, 1, 2**octave + 1, 2**octave + 1, generator=generator) * 2 - 1
        total += F.interpolate(noise, (side, side), mode="bilinear", align_corners=True) / decay**octave
    low, high = total.min(), total.max()
    return ((total - low) / (high - low))[0, 0]


def fog(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Add a plasma fractal and scale back to the brightest value that was there."""
    amount, decay = constants
    h, w = x.shape[1:]
    top = x.max()
    return (x + amount * plasma(max(h, w), decay, generator)[:h, :w]) * top / (top + amount)


def ice(side: int, generator: torch.Generator) -> torch.Tensor:
    """Return a texture of ice `[3 side side]` in [0, 1]: needles in a few directions on a cloudy ground.

    The published frost is six photographs; this is drawn instead.
    """
    needles = torch.zeros(1, side, side)
    for _ in range(4):
        seeds = (torch.rand(1, side, side, generator=generator) > 0.985).float()
        long = streak(seeds, side / 10, side / 14, uniform(0, 2 * math.pi, generator))
        needles = torch.maximum(needles, long / long.max().clamp(min=1e-6))
    ground = plasma(side, 1.6, generator)
    grey = (0.15 + 0.5 * ground + 0.6 * needles[0].sqrt() * (0.4 + ground)).clamp(0, 1)
    return grey * torch.tensor(ICE)[:, None, None]


def frost(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Lay ice over a darkened image."""
    h, w = x.shape[1:]
    return constants[0] * x + constants[1] * ice(max(h, w), generator)[:, :h, :w]


def snow(x: Image, constants: tuple[float, ...], scale: float, generator: torch.Generator) -> Image:
    """Pale the image and let flakes fall: thresholded noise, enlarged and moved downwards, from both ends."""
    mean, deviation, zoom, threshold, radius, sigma, kept = constants
    h, w = x.shape[1:]
    layer = mean + deviation * torch.randn(1, h, w, generator=generator)
    layer = zoomed(layer, [max(1.0, zoom * scale)])[0]
    layer = torch.where(layer < threshold, 0.0, layer).clamp(0, 1)
    layer = streak(layer, radius * scale, sigma * scale, math.radians(uniform(-135, -45, generator)))
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    pale = kept * x + (1 - kept) * torch.maximum(x, grey * 1.5 + 0.5)
    return pale + layer + layer.rot90(2, (1, 2))


def brightness(x: Image, amount: float, scale: float, generator: torch.Generator) -> Image:
    """Add to the value of HSV (the largest of the three colours), keeping hue and saturation."""
    value = x.max(0, keepdim=True).values
    brighter = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * brighter / value.clamp(min=1e-6), brighter)
