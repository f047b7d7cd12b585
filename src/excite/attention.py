"""Channel attention: squeeze, gate, recalibrate; for the whole map at once, or for each axis of it."""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from excite.common.checks import check_map
from excite.gates import ACTIVATIONS
from excite.ops import along, attend, factored, recalibrate_along
from excite.ops.precision import without_autocast
from excite.types import Descriptor, FeatureMap, Strips, Weights

Join = Literal["product", "sum"]
"""How the strips of the axes become one factor: `a(u_i) a(v_j)` or `a(u_i + v_j)`, a the activation."""


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


class DirectionalAttention(nn.Module):
    """`x_c[i, j] * a(u_c[i]) * a(v_c[j])`, one strip of factors per axis, `[n c *space] -> [n c *space]`.

    squeeze: module `[n c *space] -> strips`; gate: module strips -> strips, before the activation `a`; join: "product"
    as above, or "sum": `a(u_c[i] + v_c[j])`; activation: one of `excite.gates.ACTIVATIONS`; skip: `x` is added.
    """

    def __init__(
        self,
        name: str,
        squeeze: nn.Module,
        gate: nn.Module,
        channels: int,
        dims: int,
        join: Join = "product",
        activation: str = "sigmoid",
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.channels, self.dims = name, channels, dims
        self.join, self.activation, self.skip = join, activation, skip
        self.squeeze = squeeze
        self.gate = gate

    def strips(self, x: FeatureMap) -> Strips:
        """Return one strip per axis, for "product" the factors, for "sum" their terms; autocast does not reach them."""
        check_map(self.name, x, self.channels, self.dims)
        strips: Strips = without_autocast(lambda maps: self.gate(self.squeeze(maps)), x)
        return tuple(map(ACTIVATIONS[self.activation], strips)) if self.join == "product" else strips

    def _sum(self, strips: Strips) -> torch.Tensor:
        """Return the factors `[n c *space]` of joined terms."""
        terms = [along(strip, axis, self.dims) for axis, strip in enumerate(strips)]
        return ACTIVATIONS[self.activation](sum(terms[1:], terms[0]))

    def weights(self, x: FeatureMap) -> Weights:
        """Return what each channel is multiplied by `[n c]`, the mean over positions."""
        strips = self.strips(x)
        if self.join == "sum":
            means = self._sum(strips).flatten(2).mean(dim=2)
        else:
            means = torch.stack([strip.mean(dim=2) for strip in strips]).prod(dim=0)
        return 1 + means if self.skip else means

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the recalibrated map."""
        strips = self.strips(x)
        y = x * self._sum(strips).to(x.dtype) if self.join == "sum" else recalibrate_along(x, strips)
        return x + y if self.skip else y

    def extra_repr(self) -> str:
        """Show the channels and how the strips are joined."""
        return f"channels={self.channels}, join={self.join!r}, activation={self.activation!r}"
