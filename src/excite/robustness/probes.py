"""Probes: what accuracy does when the image is hidden in part, shuffled, blurred or drowned in noise, step by step."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from excite.errors import UsageError, unknown
from excite.robustness.blur import gaussian

Change = Callable[[torch.Tensor, Any, torch.Generator], torch.Tensor]  # Any: each probe has its own steps


def occlude(x: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Cover a square of `share` of the side, somewhere, with grey 0.5 (Zeiler and Fergus, ECCV 2014)."""
    h, w = x.shape[1:]
    edge = min(round(share * min(h, w)), h, w)
    top = int(torch.randint(0, h - edge + 1, (), generator=generator))
    left = int(torch.randint(0, w - edge + 1, (), generator=generator))
    x = x.clone()
    x[:, top : top + edge, left : left + edge] = 0.5
    return x


def shuffle_patches(x: torch.Tensor, grid: int, generator: torch.Generator) -> torch.Tensor:
    """Cut the image into `grid` x `grid` patches and put them together in random order; a remainder stays in place."""
    c, h, w = x.shape
    ph, pw = h // grid, w // grid
    if ph < 1 or pw < 1:
        raise UsageError(f"cannot cut an image of {h} x {w} pixels into {grid} x {grid} patches")
    inner = x[:, : ph * grid, : pw * grid]
    patches = inner.reshape(c, grid, ph, grid, pw).permute(1, 3, 0, 2, 4).reshape(grid * grid, c, ph, pw)
    patches = patches[torch.randperm(grid * grid, generator=generator)]
    x = x.clone()
    x[:, : ph * grid, : pw * grid] = (
        patches.reshape(grid, grid, c, ph, pw).permute(2, 0, 3, 1, 4).reshape(c, ph * grid, pw * grid)
    )
    return x


def blur(x: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Blur by a Gaussian whose sigma is `share` of the side."""
    return gaussian(x, share * min(x.shape[1:]))


def add_noise(x: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Add normal noise of deviation `sigma`."""
    return (x + sigma * torch.randn(x.shape, generator=generator)).clamp(0, 1)


class Probe(NamedTuple):
    """A change with its strengths, the first of which changes nothing; axis: what the strengths are."""

    change: Change
    strengths: tuple[float, ...]
    axis: str


PROBES: dict[str, Probe] = {
    "occlusion": Probe(occlude, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "side of the grey square (share of the image)"),
    "patch_shuffle": Probe(shuffle_patches, (1, 2, 3, 4, 6, 8), "patches per side"),
    "blur": Probe(blur, (0, 0.01, 0.02, 0.03, 0.05, 0.08), "Gaussian blur, sigma (share of the side)"),
    "noise": Probe(add_noise, (0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3), "Gaussian noise, sigma (white = 1)"),
}


def probe(pixels: torch.Tensor, name: str, strength: float, *, seed: int = 0, index: int = 0) -> torch.Tensor:
    """Return `pixels` `[c h w]` in [0, 1] changed by probe `name`; the chance depends on seed, name and index alone.

    Raises UsageError for an unknown probe.
    """
    if name not in PROBES:
        raise unknown("probe", name, PROBES)
    if strength == PROBES[name].strengths[0]:
        return pixels
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name} {index}".encode()))
    return PROBES[name].change(pixels, strength, generator)
