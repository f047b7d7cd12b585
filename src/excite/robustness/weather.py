"""Weather: snow, frost, fog, sunlight."""

import math

import torch

from excite.robustness.blur import streak, to_8_bits, uniform, zoomed

Image = torch.Tensor  # [3 h w] in [0, 1]
# Mean, deviation and tint (red, green, blue) of each photograph among which the published frost draws.
PHOTOGRAPHS = (
    (0.51, 0.17, (0.60, 1.14, 1.27)),
    (0.81, 0.09, (0.97, 0.99, 1.04)),
    (0.81, 0.09, (0.97, 0.99, 1.04)),
    (0.60, 0.12, (0.91, 1.01, 1.09)),
    (0.48, 0.17, (0.91, 1.00, 1.09)),
)


def plasma(side: int, decay: float, generator: torch.Generator) -> torch.Tensor:
    """Return a plasma fractal `[side side]` that repeats at its borders, with values from 0 to 1.

    The diamond-square algorithm on a map whose side is a power of two: each halving of the step sets the new points to
    the mean of their four neighbours plus noise, and makes the noise `decay` squared times weaker (the published code
    multiplies its amplitude by numbers drawn up to the amplitude).
    """
    size = 1 << max(1, math.ceil(math.log2(side)))
    total = torch.zeros(size, size, dtype=torch.float64)
    step, amplitude = size, 100.0

    def noisy(mean: torch.Tensor) -> torch.Tensor:
        draw = torch.rand(mean.shape, generator=generator, dtype=torch.float64)
        return mean + amplitude**2 * (2 * draw - 1)

    while step >= 2:
        half = step // 2
        corners = total[::step, ::step]
        pairs = corners + corners.roll(-1, 0)
        total[half::step, half::step] = noisy((pairs + pairs.roll(-1, 1)) / 4)
        centres, corners = total[half::step, half::step], total[::step, ::step]
        above = centres + centres.roll(1, 0) + corners + corners.roll(-1, 1)
        total[::step, half::step] = noisy(above / 4)
        beside = centres + centres.roll(1, 1) + corners + corners.roll(-1, 0)
        total[half::step, ::step] = noisy(beside / 4)
        step, amplitude = half, amplitude / decay
    total -= total.min()
    return (total / total.max())[:side, :side].float()


def fog(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Add a plasma fractal and scale back to the brightest value that was there."""
    amount, decay = constants
    h, w = x.shape[1:]
    top = x.max()
    return (x + amount * plasma(max(h, w), decay, generator)[:h, :w]) * top / (top + amount)


def ice(side: int, fineness: float, generator: torch.Generator) -> torch.Tensor:
    """Return a texture of ice `[3 side side]` in [0, 1]: needles in a few directions on a cloudy ground.

    The published frost is a random cut of one of five photographs (a sixth is never drawn); this is drawn instead, with
    the mean, deviation and tint of one of them. fineness: decay of the ground's plasma; less is rougher.
    """
    mean, deviation, tint = PHOTOGRAPHS[int(torch.randint(len(PHOTOGRAPHS), (), generator=generator))]
    needles = torch.zeros(1, side, side)
    for _ in range(4):
        seeds = (torch.rand(1, side, side, generator=generator) > 0.985).float()
        long = streak(seeds, side / 10, side / 14, uniform(0, 2 * math.pi, generator))
        needles = torch.maximum(needles, long / long.max().clamp(min=1e-6))
    grey = plasma(side, fineness, generator) + 0.5 * needles[0].sqrt()
    grey = mean + 0.8 * deviation * (grey - grey.mean()) / grey.std().clamp(
        min=1e-6
    )  # a cut varies less than the whole
    return (grey * torch.tensor(tint)[:, None, None]).clamp(0, 1)


def frost(x: Image, constants: tuple[float, float], scale: float, generator: torch.Generator) -> Image:
    """Lay ice over a darkened image."""
    h, w = x.shape[1:]
    # Small images get photographs made five times smaller, which are rougher.
    fineness = 1.17 if max(h, w) < 85 else 1.45
    return constants[0] * x + constants[1] * ice(max(h, w), fineness, generator)[:, :h, :w]


def snow(x: Image, constants: tuple[float, ...], scale: float, generator: torch.Generator) -> Image:
    """Pale the image and let flakes fall: thresholded noise, enlarged and moved downwards, from both ends."""
    mean, deviation, zoom, threshold, radius, sigma, share = constants
    h, w = x.shape[1:]
    layer = mean + deviation * torch.randn(1, h, w, generator=generator)
    layer = zoomed(layer, max(1.0, zoom * scale))
    layer = to_8_bits(torch.where(layer < threshold, 0.0, layer))
    layer = streak(layer, radius * scale, sigma * scale, math.radians(uniform(-135, -45, generator)))
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    pale = share * x + (1 - share) * torch.maximum(x, grey * 1.5 + 0.5)
    return pale + layer + layer.rot90(2, (1, 2))


def brightness(x: Image, amount: float, scale: float, generator: torch.Generator) -> Image:
    """Add to the value of HSV (the largest of the three colours), keeping hue and saturation."""
    value = x.max(0, keepdim=True).values
    brighter = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * brighter / value.clamp(min=1e-6), brighter)
