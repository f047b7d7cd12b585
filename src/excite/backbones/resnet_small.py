"""The CIFAR family ResNet-20/32/44/56/110 (He et al. 2016, section 4.2): three stages of 16, 32 and 64 planes."""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import nn

from excite.backbones.blocks import BasicBlock
from excite.backbones.placement import AttentionSpec
from excite.backbones.resnet import ResNet
from excite.errors import UsageError, unknown
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
    """ResNet of 6n+2 layers, n blocks of `width`, 2 and 4 times `width` planes in each of three stages.

    shortcut: "pad" (the paper's option A) or "projection" (option B); the other options are those of `ResNet`.
    Raises UsageError for `avg_down` without projections.
    """

    stages = 3

    def __init__(
        self,
        blocks_per_stage: Sequence[int] | str,
        *,
        width: int = 16,
        shortcut: str = "pad",
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: str = "cifar",
        stem_widths: Sequence[int] | str | None = None,
        avg_down: bool = False,
        attention: AttentionSpec | None = None,
    ) -> None:
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        if avg_down and shortcut == "pad":
            raise UsageError(
                "option avg_down changes projections, and shortcut='pad' has none; use shortcut='projection'"
            )
        if type(width) is not int or width < 1:
            raise UsageError(f"option width={width!r}; expected a positive whole number")
        self.shortcut = shortcut
        super().__init__(
            BasicBlock,
            blocks_per_stage,
            widths=(width, 2 * width, 4 * width),
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            stem_widths=stem_widths,
            avg_down=avg_down,
            attention=attention,
        )

    def make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """Return the padding, the projection, or None where the shapes agree."""
        if self.shortcut == "pad" and (stride > 1 or in_channels != out_channels):
            return PadShortcut(out_channels - in_channels, stride)
        return super().make_shortcut(in_channels, out_channels, stride)


resnet20, resnet32, resnet44, resnet56, resnet110 = (
    partial(SmallResNet, blocks_per_stage=(n, n, n)) for n in (3, 5, 7, 9, 18)
)
