"""How strong each severity is: published constants, and ours where those have none that fit.

Source of the constants: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019, appendix and its repository (hendrycks/robustness): the tables of CIFAR-10-C (images of 32
pixels) and of ImageNet-C (224 pixels). Lengths below are in pixels of those sizes and are scaled with the image's side.
The published severities of `glass_blur` (32 pixels) and `elastic_transform` do not grow from each to the next.
"""

import math
from typing import NamedTuple

Constant = float | tuple[float, ...]  # of one severity; a family with several numbers has a tuple


class Table(NamedTuple):
    """The constants for images near `side` pixels: one entry per severity and family."""

    side: int
    constants: dict[str, tuple[Constant, ...]]


def _zoom(stop: float, step: float) -> tuple[float, ...]:
    # As numpy's arange counts: (1.06 - 1) / 0.01 is a little more than 6, so it has 7 factors.
    return tuple(1 + i * step for i in range(math.ceil((stop - 1) / step)))


SMALL = Table(
    32,
    {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation
        "shot_noise": (500, 250, 100, 75, 50),  # photons of a white pixel
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of values
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),  # radius, sigma of its edge
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),  # sigma, reach, rounds
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),  # radius, sigma
        "zoom_blur": tuple(_zoom(stop, 0.01) for stop in (1.06, 1.11, 1.16, 1.21, 1.26)),  # zoom factors
        # mean, deviation, zoom of flakes, threshold, blur radius, blur sigma, share of the image kept
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),  # shares of image and ice
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),  # amount, decay per octave
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the value
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # share kept
        # strength, smoothness and size of the affine part
        "elastic_transform": (
            (0, 0, 32 * 0.08),
            (32 * 0.05, 32 * 0.2, 32 * 0.07),
            (32 * 0.08, 32 * 0.06, 32 * 0.06),
            (32 * 0.1, 32 * 0.04, 32 * 0.05),
            (32 * 0.1, 32 * 0.03, 32 * 0.03),
        ),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # share of the side kept
        "jpeg_compression": (80, 65, 58, 50, 40),  # quality
    },
)

LARGE = Table(
    224,
    {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": (_zoom(1.11, 0.01), _zoom(1.16, 0.01), _zoom(1.21, 0.02), _zoom(1.26, 0.02), _zoom(1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "elastic_transform": (  # 244, as published, for images of 224
            (244 * 2, 244 * 0.7, 244 * 0.1),
            (244 * 2, 244 * 0.08, 244 * 0.2),
            (244 * 0.05, 244 * 0.01, 244 * 0.02),
            (244 * 0.07, 244 * 0.01, 244 * 0.02),
            (244 * 0.12, 244 * 0.01, 244 * 0.02),
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (25, 18, 15, 10, 7),
    },
)

FAMILIES = tuple(SMALL.constants)
SEVERITIES = (1, 2, 3, 4, 5)

# Mean top-1 error of AlexNet over the five severities of ImageNet-C, from the same repository: what the literature
# divides by when it says mCE of ImageNet-C.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def table_for(side: int) -> Table:
    """Return the table whose size is nearer to `side` pixels, by ratio."""
    return SMALL if side * side < SMALL.side * LARGE.side else LARGE
