"""Residual blocks: `block(x, context)`, with attention at the end of the residual branch."""

from collections.abc import Sequence
from typing import Protocol, cast

from torch import nn

from excite.inspect.attention import attention_paths, convolves
from excite.ops import described_tail, norm_act, residual_tail
from excite.types import Descriptor, FeatureMap, Weights

Bank = tuple[Descriptor, ...]


class ContextAttention(Protocol):
    """Attention whose weights depend on descriptors of earlier blocks too (EMCA)."""

    squeeze: nn.Module

    def weights_of(self, descriptor: Descriptor, context: Sequence[Descriptor]) -> Weights:
        """Return what the map is multiplied by, `[n c]`."""

    def __call__(self, x: FeatureMap, context: Sequence[Descriptor]) -> FeatureMap:
        """Return the recalibrated map."""


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the size (up to the stride)."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class Block(nn.Module):
    """A residual block: `branch` up to its last convolution, norm, attention, addition of the `shortcut`, rectifier.

    sources: the entries of the network's bank that make up `context`, oldest first; squeeze: describes the block for
    later ones, None where nobody asks; where: "block" or "branch" as in EmcaSpec, None for attention without a context.
    """

    relu: nn.Module
    attention: nn.Module | None
    downsample: nn.Module | None
    squeeze: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.connect((), None, None)

    def connect(self, sources: tuple[int, ...], squeeze: nn.Module | None, where: str | None) -> None:
        """Fix what this block reads, and how it is described where it is read."""
        self.sources, self.where = sources, where
        self.squeeze = squeeze

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        raise NotImplementedError

    @property
    def last_act(self) -> nn.Module | None:
        """The rectifier at the end, None for a linear block."""
        return self.relu

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        raise NotImplementedError

    def shortcut(self, x: FeatureMap) -> FeatureMap | None:
        """Return what is added to the branch, None for nothing."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> FeatureMap | tuple[FeatureMap, Descriptor]:
        """Return the output `[n c h w]`; of a block that later ones read, also its descriptor `[n c k]`."""
        z, shortcut = self.branch(x), self.shortcut(x)
        norm, act, attention = self.last_norm, self.last_act, self.attention
        if self.where is None:
            x = residual_tail(z, norm, attention, shortcut, act)
        elif self.where == "branch" and (attention is not None or self.squeeze is not None):
            emca = cast("ContextAttention | None", attention)

            def weigh(descriptor: Descriptor) -> Weights:
                return cast("ContextAttention", emca).weights_of(descriptor, context)

            squeeze = cast(nn.Module, self.squeeze if emca is None else emca.squeeze)
            x, descriptor = described_tail(z, norm, squeeze, None if emca is None else weigh, shortcut, act)
            return x if self.squeeze is None else (x, descriptor)
        else:
            x = residual_tail(z, norm, None, shortcut, act)
            x = x if attention is None else attention(x, context)
        return x if self.squeeze is None else (x, self.squeeze(x))


def step(layer: nn.Module, x: FeatureMap, bank: Bank) -> tuple[FeatureMap, Bank]:
    """Run a block, or any other layer; return its output and the bank with its descriptor where it has one."""
    if not isinstance(layer, Block):
        return layer(x), bank
    out = layer(x, tuple(bank[i] for i in layer.sources)) if layer.sources else layer(x)
    if layer.squeeze is None:
        return out, bank
    x, descriptor = out
    return x, (*bank, descriptor)


class BasicBlock(Block):
    """conv3x3 - bn - relu - conv3x3 - tail, where tail is `relu(attention(bn(z)) + shortcut)`."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        attention: nn.Module | None,
        spatial: nn.Module | None = None,
    ) -> None:
        """Build the block; `spatial` replaces the first 3x3 convolution where given."""
        super().__init__()
        self.conv1 = spatial if spatial is not None else conv3x3(in_channels, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.attention = attention
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.bn2

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        return self.conv2(norm_act(self.conv1(x), self.bn1, self.relu))


class Bottleneck(Block):
    """conv1x1 - conv3x3 (with the stride) - conv1x1 - tail, where tail is `relu(attention(bn(z)) + shortcut)`."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        attention: nn.Module | None,
        spatial: nn.Module | None = None,
    ) -> None:
        """Build the block; `spatial` replaces the 3x3 convolution where given."""
        super().__init__()
        self.conv1 = conv1x1(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = spatial if spatial is not None else conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.attention = attention
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.bn3

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        x = norm_act(self.conv1(x), self.bn1, self.relu)
        return self.conv3(norm_act(self.conv2(x), self.bn2, self.relu))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the 1x1 convolution and batch norm of a shortcut, or None where the shapes agree."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def initialise(network: nn.Module) -> None:
    """Initialise as the papers do: He normal over the outputs for 2-D convolutions, 1 and 0 for batch norms.

    Attention keeps what its own constructor chose (some start as the identity on purpose), unless it stands for a
    convolution.
    """
    attention = [network.get_submodule(path) for path in attention_paths(network)]
    skipped = {id(part) for module in attention if not convolves(module) for part in module.modules()}
    for module in network.modules():
        if id(module) in skipped:
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
