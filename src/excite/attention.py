"""Channel attention: squeeze, gate, recalibrate."""

from typing import Protocol, runtime_checkable

from torch import nn

from excite.common.checks import check_map
from excite.ops import attend, factored
from excite.ops.precision import without_autocast
from excite.types import Descriptor, FeatureMap, Weights


@runtime_checkable
class WeighsChannels(Protocol):
    """A module that can say by what it multiplies each channel; those without `weights` add, or weigh positions alone.

    Where the factor of a channel differs between positions, or the module has further factors that are no part of its
    channel attention, the docstring of its `weights` says what is returned.
    """

    def weights(self, x: FeatureMap) -> Weights:
        """Return the factors `[n c]` of the channels of `x`, or of the maps that the module makes of them (psa, ma)."""
        ...


@factored
class ChannelAttention(nn.Module):
    """`x * gate(squeeze(x))`, `[n c *space] -> [n c *space]`.

    squeeze: module `[n c *space] -> [n c k]`; gate: module `[n c k] -> [n c]`; channels, and dims (space axes) where it
    is given: checked on every call. Raises UsageError for other maps.
    """

    def __init__(self, squeeze: nn.Module, gate: nn.Module, channels: int, dims: int | None = None) -> None:
        super().__init__()
        self.channels, self.dims = channels, dims
        self.squeeze = squeeze
        self.gate = gate

    def check(self, x: FeatureMap) -> None:
        """Raise UsageError unless `x` is `[n channels *space]`."""
        check_map("attention", x, self.channels, self.dims)

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` that `x` is multiplied by; autocast does not reach them."""
        self.check(x)
        return without_autocast(lambda maps: self.gate(self.squeeze(maps)), x)

    def weights_of(self, descriptor: Descriptor) -> Weights:
        """Return the weights `[n c]` for a descriptor that was squeezed elsewhere; autocast does not reach them."""
        return without_autocast(self.gate, descriptor)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        self.check(x)
        return attend(x, self)

    def extra_repr(self) -> str:
        """Show the channels in the module's text."""
        return f"channels={self.channels}"
