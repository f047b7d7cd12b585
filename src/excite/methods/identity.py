"""Attention that starts as the identity: for networks whose trained function must not change when it is added."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from excite.attention import ChannelAttention, WeighsChannels
from excite.errors import UsageError
from excite.methods.base import Method
from excite.methods.emca import LocalGlobalEmca
from excite.ops.precision import without_autocast
from excite.types import Descriptor, FeatureMap, Weights

Init = Literal["paper", "identity"]


# Every value of a map pulls at the one number a, so that its gradient is far larger than that of any other weight: at
# the full rate it outruns the trained network that it sits in (benchmarks/finetune.py).
SHARE = 0.1


def _gently(number: Tensor) -> Tensor:
    """Return the number as it is, with a tenth of its gradient."""
    return number.detach() + SHARE * (number - number.detach())


class BlendedGate(nn.Module):
    """`w = 1 + a (gate(s) - 1)`, `[n c k] -> [n c]`, with one learned number a that starts at 0.

    The first gradient moves a; from then on the gate learns too.
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.blend = nn.Parameter(torch.zeros(1))

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the blended weights."""
        weights: Weights = self.gate(descriptor)
        return 1 + _gently(self.blend).to(weights.dtype) * (weights - 1)


class Blended(nn.Module):
    """`y = x + a (attention(x) - x)`, `[n c *space] -> [n c *space]`, with one learned number a that starts at 0."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.blend = nn.Parameter(torch.zeros(1))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map, as far as the attention is blended in."""
        change: FeatureMap = self.attention(x) - x
        return x + _gently(self.blend).to(change.dtype) * change


class BlendedWeights(Blended):
    """The same for attention that can say by what it multiplies each channel."""

    def weights(self, x: FeatureMap) -> Weights:
        """Return the factors of the channels `[n c]`: 1 + a (w - 1)."""
        inner = cast(WeighsChannels, self.attention)
        return without_autocast(lambda maps: 1 + _gently(self.blend).to(maps.dtype) * (inner.weights(maps) - 1), x)


def start_as_identity(name: str, method: Method, module: nn.Module, *, changed: bool) -> nn.Module:
    """Return a freshly built module of a method so that at first it returns its input.

    Squeeze and gate stay squeeze and gate: the number stands behind the gate, so that the fused tail takes it too.
    changed: whether options differ from the method's own; with its own options some methods start as the identity.
    Raises UsageError for methods that have no such start.
    """
    if method.identity_at_init and not changed:
        return module
    if method.role == "conv":
        raise UsageError(f"{name} takes the place of a convolution, so it cannot start as the identity; leave init out")
    if isinstance(module, LocalGlobalEmca):
        raise UsageError(f"{name}: the released form multiplies by 1 + s and has no identity; take form='paper'")
    if isinstance(module, ChannelAttention):
        module.gate = BlendedGate(module.gate)
        return module
    return BlendedWeights(module) if isinstance(module, WeighsChannels) else Blended(module)
