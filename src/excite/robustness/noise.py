"""Noise: of the sensor (gaussian), of few photons (shot), of dead pixels (impulse)."""

import torch

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
