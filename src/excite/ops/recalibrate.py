"""Recalibrate: multiply a map by its weights, one per channel or one per channel and place along an axis."""

import torch

from excite.types import FeatureMap, Strips, Weights


def recalibrate(x: FeatureMap, weights: Weights) -> FeatureMap:
    """Scale channel c of sample n of `x` `[n c *space]` by `weights[n, c]`; the result has the dtype of `x`.

    The weights are broadcast, never expanded: an expanded copy is as large as the map and exporters keep it.
    """
    return x * weights.to(x.dtype).reshape(weights.shape + (1,) * (x.dim() - 2))


def along(strip: torch.Tensor, axis: int, dims: int) -> torch.Tensor:
    """Return a strip `[n c s]` with a size of one on all `dims` space axes but `axis`, ready to broadcast."""
    n, c, s = strip.shape
    return strip.reshape(n, c, *(s if i == axis else 1 for i in range(dims)))


def recalibrate_along(x: FeatureMap, strips: Strips) -> FeatureMap:
    """Scale `x` `[n c *space]` by the product of one factor per axis, `x_c[i, j] * a_c[i] * b_c[j]`.

    strips: the factors, one strip per space axis; broadcast, never expanded. The result has the dtype of `x`.
    """
    for axis, strip in enumerate(strips):
        x = x * along(strip, axis, len(strips)).to(x.dtype)
    return x
