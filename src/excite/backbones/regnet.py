"""Small RegNets for 32x32 images (Radosavovic et al., Designing Network Design Spaces, CVPR 2020, section 4)."""

from functools import partial
from typing import NamedTuple

from torch import nn

from excite.backbones.blocks import Block, conv1x1, conv3x3, initialise, projection
from excite.backbones.network import StagedNetwork, refuse_conv_methods
from excite.backbones.placement import AttentionSpec, Site
from excite.ops import norm_act
from excite.registry import create_attention
from excite.types import FeatureMap

STRIDES = (1, 1, 2, 2)
STEM = 64


class Shape(NamedTuple):
    """Blocks and channels per stage, channels per group of the 3x3 convolutions, inner SE relative to the input."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group_width: int
    se_ratio: float = 0.0


SHAPES = {
    "regnetx_200mf_cifar": Shape((1, 1, 4, 7), (24, 56, 152, 368), 8),
    "regnetx_400mf_cifar": Shape((1, 2, 7, 12), (32, 64, 160, 384), 16),
    "regnety_400mf_cifar": Shape((1, 2, 7, 12), (32, 64, 160, 384), 16, 0.25),
}


class RegNetBlock(Block):
    """conv1x1 - grouped conv3x3 (- inner SE) - conv1x1 - tail, where tail is `relu(attention(bn(z)) + shortcut)`."""

    def __init__(self, inputs: int, width: int, stride: int, shape: Shape, attention: nn.Module | None) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups=width // shape.group_width)
        self.bn2 = nn.BatchNorm2d(width)
        # This SE belongs to the RegNet itself; its hidden units follow the block's input.
        hidden = round(inputs * shape.se_ratio)
        self.inner = create_attention("se", width, hidden=hidden, bias=True) if hidden else None
        self.conv3 = conv1x1(width, width)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.attention = attention
        self.downsample = projection(inputs, width, stride)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.bn3

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        x = norm_act(self.conv1(x), self.bn1, self.relu)
        x = norm_act(self.conv2(x), self.bn2, self.relu)
        return self.conv3(x if self.inner is None else self.inner(x))


class RegNet(StagedNetwork):
    """RegNet with a 3x3 stem of stride 1 and one place for attention per block.

    Raises UsageError for methods that replace a dense 3x3 convolution: here it is grouped.
    """

    def __init__(
        self, shape: Shape, *, num_classes: int = 1000, in_channels: int = 3, attention: AttentionSpec | None = None
    ) -> None:
        super().__init__(attention, shape.depths)
        refuse_conv_methods(self.spec, "a RegNet")
        self.feature_channels = shape.widths
        self.conv1 = conv3x3(in_channels, STEM)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        inputs = STEM
        for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
            blocks = []
            for i in range(depth):
                attention_module = self.spec.residual(Site(width, stage, i, depth), len(shape.depths))
                blocks.append(RegNetBlock(inputs, width, STRIDES[stage] if i == 0 else 1, shape, attention_module))
                inputs = width
            self.add_stage(stage, blocks, width)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)
        self.connect_stages()


regnetx_200mf_cifar, regnetx_400mf_cifar, regnety_400mf_cifar = (partial(RegNet, shape) for shape in SHAPES.values())
