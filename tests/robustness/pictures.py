"""The images on which the published corruptions were measured (tests/golden/corruptions.json)."""

import numpy as np


def picture(side: int, index: int) -> np.ndarray:
    """Return waves whose amplitudes fall as 1/f, as in photographs, and a disk: `[side side 3]`, 8 bits."""
    draw = np.random.RandomState(1000 * side + index)
    y, x = np.mgrid[0:side, 0:side] / side
    out = np.zeros((side, side, 3))
    for _ in range(60):
        f = 0.5 * (side / 2) ** draw.uniform(0, 0.9)
        angle, phase = draw.uniform(0, 2 * np.pi, 2)
        colour = draw.normal(1, 0.35, 3) * draw.normal()
        out += colour / f * np.cos(2 * np.pi * f * (x * np.cos(angle) + y * np.sin(angle)) + phase)[..., None]
    disk = (x - draw.uniform(0.3, 0.7)) ** 2 + (y - draw.uniform(0.3, 0.7)) ** 2 < 0.04
    out[disk] += draw.normal(0, 0.8, 3)
    out = 0.45 + 0.2 * (out - out.mean()) / out.std()
    return (out.clip(0, 1) * 255).round().astype(np.uint8)
