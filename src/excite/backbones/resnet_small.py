"""The CIFAR family ResNet-20/32/44/56/110 (He et al. 2016, section 4.2): three stages of 16, 32 and 64 planes."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn

from excite.backbones.blocks import BasicBlock
from excite.backbones.placement import AttentionSpec
from excite.backbones.resnet import ResNet
from excite.errors import unknown
from excite.types import FeatureMap

SHORTCUTS = ("pad", "projection")


class PadShortcut(nn.Module):
    """Shortcut without parameters: every stride-th position, new channels zero (option A of the paper)."""

    def __init__(self, extra_channels: int, stride: int) -> None:
        super().__init__()
        self.extra_channels, self.stride = extra_channels, stride

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return `[n c+extra h/stride w/stride]`."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.extra_channels // 2, self.extra_channels - self.extra_channels // 2))


class SmallResNet(ResNet):
    """ResNet of 6n+2 layers; shortcut: "pad" (the paper's option A) or "projection" (option B)."""

    basic_block: type[BasicBlock] = BasicBlock

    def __init__(
        self, depth: int, *, shortcut: str = "pad", width: int = 16, stem: str = "cifar", **kwargs: Any
    ) -> None:
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        self.shortcut = shortcut
        n = (depth - 2) // 6
        super().__init__(self.basic_block, (n, n, n), widths=(width, 2 * width, 4 * width), stem=stem, **kwargs)

    def make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """Return the padding, the projection, or None where the shapes agree."""
        if self.shortcut == "pad" and (stride > 1 or in_channels != out_channels):
            return PadShortcut(out_channels - in_channels, stride)
        return super().make_shortcut(in_channels, out_channels, stride)


def _named(depth: int) -> Callable[..., SmallResNet]:
    def build(*, attention: AttentionSpec | None = None, shortcut: str = "pad", **kwargs: Any) -> SmallResNet:
        return SmallResNet(depth, attention=attention, shortcut=shortcut, **kwargs)

    build.__doc__ = f"Build ResNet-{depth} of the CIFAR family."
    return build


resnet20, resnet32, resnet44, resnet56, resnet110 = (_named(depth) for depth in (20, 32, 44, 56, 110))
