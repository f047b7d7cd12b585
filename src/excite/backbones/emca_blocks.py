"""The blocks of EMCA networks: `block(x, context) -> (x, descriptor)`."""

from collections.abc import Callable, Sequence

from torch import nn

from excite.backbones.blocks import BasicBlock, Bottleneck
from excite.backbones.mobilenetv2 import InvertedResidual
from excite.ops import described_tail, residual_tail
from excite.types import Descriptor, FeatureMap, Weights

Act = Callable[[FeatureMap], FeatureMap] | None
Out = tuple[FeatureMap, Descriptor | None]


class EmcaBlock(nn.Module):
    """What a block needs to take part; mixed in before the block's own class.

    sources: indices of the bank that make up `context`, oldest first; squeeze: describes the block for later ones, or
    None where nobody asks; where: as in EmcaSpec.
    """

    sources: tuple[int, ...] = ()
    squeeze: nn.Module | None
    where: str = "block"

    def connect(self, sources: tuple[int, ...], squeeze: nn.Module | None, where: str) -> None:
        """Fix what this block reads and whether it is read."""
        self.sources, self.where = sources, where
        self.squeeze = squeeze

    def finish(self, z: FeatureMap, context: Sequence[Descriptor], shortcut: FeatureMap | None, act: Act) -> Out:
        """Return the block's output and its descriptor from the output `z` of its last convolution."""
        attention = self.attention
        if self.where == "block" or (attention is None and self.squeeze is None):
            x = residual_tail(z, self.last_norm, None, shortcut, act)  # type: ignore[arg-type]
            if attention is not None:
                x = attention(x, context)  # type: ignore[operator]
            return x, None if self.squeeze is None else self.squeeze(x)
        squeeze = self.squeeze if attention is None else attention.squeeze

        def weigh(descriptor: Descriptor) -> Weights:
            return attention.factor(descriptor, context)  # type: ignore[operator, union-attr]

        weights = None if attention is None else weigh
        return described_tail(z, self.last_norm, squeeze, weights, shortcut, act)  # type: ignore[arg-type]


class EmcaBasicBlock(EmcaBlock, BasicBlock):
    """BasicBlock with a context."""

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> Out:  # type: ignore[override]
        """Return the block's output and its descriptor `[n c k]` (None where nobody reads it)."""
        return self.finish(self.branch(x), context, self.shortcut(x), self.relu)


class EmcaBottleneck(EmcaBlock, Bottleneck):
    """Bottleneck with a context."""

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> Out:  # type: ignore[override]
        """Return the block's output and its descriptor `[n c k]` (None where nobody reads it)."""
        return self.finish(self.branch(x), context, self.shortcut(x), self.relu)


class EmcaInvertedResidual(EmcaBlock, InvertedResidual):
    """Inverted residual with a context."""

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> Out:  # type: ignore[override]
        """Return the block's output and its descriptor `[n c k]` (None where nobody reads it)."""
        return self.finish(self.branch(x), context, x if self.has_shortcut else None, None)
