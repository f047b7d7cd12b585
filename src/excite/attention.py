"""Channel attention: squeeze, gate, recalibrate."""

from torch import nn

from excite.errors import UsageError
from excite.ops import attend, factored
from excite.ops.precision import without_autocast
from excite.types import Descriptor, FeatureMap, Weights


@factored
class ChannelAttention(nn.Module):
    """`x * gate(squeeze(x))`, `[n c *space] -> [n c *space]`.

    squeeze: module `[n c *space] -> [n c k]`; gate: module `[n c k] -> [n c]`; channels: checked on every call.
    Raises UsageError when the input has another number of channels or no space axes.
    """

    def __init__(self, squeeze: nn.Module, gate: nn.Module, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.squeeze = squeeze
        self.gate = gate

    def check(self, x: FeatureMap) -> None:
        """Raise UsageError unless `x` is `[n channels *space]`."""
        if x.dim() < 3 or x.shape[1] != self.channels:
            raise UsageError(
                f"attention over {self.channels} channels got a map of shape {tuple(x.shape)}; "
                f"expected [n {self.channels} *space]"
            )

    def weights(self, x: FeatureMap) -> Weights:
        """Return the weights `[n c]` that `x` would be multiplied by; autocast does not reach them."""
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
