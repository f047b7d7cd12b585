"""The residual tail: everything between the last convolution of a block and the block's output."""

from collections.abc import Callable

from torch import nn

from excite.types import FeatureMap


def residual_tail(
    z: FeatureMap,
    norm: nn.Module,
    attention: nn.Module | None,
    shortcut: FeatureMap | None,
    act: Callable[[FeatureMap], FeatureMap] | None,
) -> FeatureMap:
    """Return `act(attention(norm(z)) + shortcut)`, `[n c h w]`; each of `attention`, `shortcut`, `act` may be None.

    z: output of the block's last convolution. `norm` updates its running statistics in train mode as always.
    """
    y = norm(z)
    if attention is not None:
        y = attention(y)
    if shortcut is not None:
        y = y + shortcut
    return act(y) if act is not None else y
