"""Residual blocks: `block(x, context)`, with attention at the end of the residual branch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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

    stride: from the input to the output. sources: the entries of the network's bank that make up `context`, oldest
    first; squeeze: describes the block for later ones, None where nobody asks; where: "block" or "branch" as in
    EmcaSpec, None for attention without a context.
    """

    relu: nn.Module
    attention: nn.Module | None
    downsample: nn.Module | None
    squeeze: nn.Module | None
    stride = 1
    drop_path = 0.0
    """Probability with which the residual branch of an image is left out in training (Huang et al., ECCV 2016)."""

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

    def keep(self, x: FeatureMap, shortcut: FeatureMap | None) -> torch.Tensor | None:
        """Draw what each image's branch is multiplied by, `[n]`: 0 or 1 / (1 - p). None where no branch is left out."""
        if not self.training or not self.drop_path or shortcut is None:
            return None
        stay = 1 - self.drop_path
        return torch.empty(x.shape[0], device=x.device).bernoulli_(stay).div_(stay)

    def forward(self, x: FeatureMap, context: Sequence[Descriptor] = ()) -> FeatureMap | tuple[FeatureMap, Descriptor]:
        """Return the output `[n c h w]`; of a block that later ones read, also its descriptor `[n c k]`."""
        norm, act, attention = self.last_norm, self.last_act, self.attention
        # The branch's map has no name here, so that it goes as soon as it is normalised.
        skip: FeatureMap | None
        if self.where is None:
            x = residual_tail(self.branch(x), norm, attention, skip := self.shortcut(x), act, self.keep(x, skip))
            return x if self.squeeze is None else (x, self.squeeze(x))
        if self.where == "branch" and (attention is not None or self.squeeze is not None):
            emca = cast("ContextAttention | None", attention)

            def weigh(descriptor: Descriptor) -> Weights:
                return cast("ContextAttention", emca).weights_of(descriptor, context)

            squeeze = cast(nn.Module, self.squeeze if emca is None else emca.squeeze)
            x, descriptor = described_tail(
                self.branch(x), norm, squeeze, None if emca is None else weigh, skip := self.shortcut(x), act,
                self.keep(x, skip),
            )  # fmt: skip
            return x if self.squeeze is None else (x, descriptor)
        x = residual_tail(self.branch(x), norm, None, skip := self.shortcut(x), act, self.keep(x, skip))
        x = x if attention is None else attention(x, context)
        return x if self.squeeze is None else (x, self.squeeze(x))


def step(layer: nn.Module, x: FeatureMap, bank: Bank, recompute: bool = False) -> tuple[FeatureMap, Bank]:
    """Run a block, or any other layer; return its output and the bank with its descriptor where it has one.

    recompute: forget what is inside the layer, and run it again for the gradients (gradient checkpointing).
    """
    run = partial(recomputed, layer) if recompute else layer
    if not isinstance(layer, Block):
        return run(x), bank
    out = run(x, tuple(bank[i] for i in layer.sources)) if layer.sources else run(x)
    if layer.squeeze is None:
        return out, bank
    x, descriptor = out
    return x, (*bank, descriptor)


def recomputed(layer: nn.Module, *inputs: object) -> Any:  # a map, or a map and a descriptor
    """Return what a layer gives; for the gradients it runs again, and its norms count the batch once."""
    if torch.compiler.is_compiling():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return checkpoint(layer, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _counted(layer)))


@contextmanager
def _counted(layer: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are: this batch is in them already."""
    norms = [m for m in layer.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


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
        self.stride = stride
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
        self.stride = stride
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
