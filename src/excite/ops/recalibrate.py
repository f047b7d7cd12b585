"""Recalibrate: multiply every channel of a map by its weight."""

from excite.types import FeatureMap, Weights


def recalibrate(x: FeatureMap, weights: Weights) -> FeatureMap:
    """Scale channel c of sample n of `x` `[n c *space]` by `weights[n, c]`; the result has the dtype of `x`.

    The weights are broadcast, never expanded: an expanded copy is as large as the map and exporters keep it.
    """
    return x * weights.to(x.dtype).reshape(weights.shape + (1,) * (x.dim() - 2))
