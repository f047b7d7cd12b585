"""Small RegNets for 32x32 images (Radosavovic et al., Designing Network Design Spaces, CVPR 2020, section 4)."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from excite.backbones.blocks import conv1x1, initialise
from excite.backbones.placement import AttentionSpec, Site
from excite.errors import UsageError
from excite.ops import norm_act, residual_tail
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


class RegNetBlock(nn.Module):
    """conv1x1 - grouped conv3x3 (- inner SE) - conv1x1 - tail, where tail is `relu(attention(bn(z)) + shortcut)`."""

    def __init__(self, inputs: int, width: int, stride: int, shape: Shape, attention: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        groups = width // shape.group_width
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        # This SE belongs to the RegNet itself; its hidden units follow the block's input.
        hidden = round(inputs * shape.se_ratio)
        self.inner = create_attention("se", width, hidden=hidden, bias=True) if hidden else None
        self.conv3 = conv1x1(width, width)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.attention = attention
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(conv1x1(inputs, width, stride), nn.BatchNorm2d(width))

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.bn3

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        x = norm_act(self.conv1(x), self.bn1, self.relu)
        x = norm_act(self.conv2(x), self.bn2, self.relu)
        return self.conv3(x if self.inner is None else self.inner(x))

    def shortcut(self, x: FeatureMap) -> FeatureMap:
        """Return what is added to the branch."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the block's output, `[n width h/stride w/stride]`."""
        return residual_tail(self.branch(x), self.last_norm, self.attention, self.shortcut(x), self.relu)


class RegNet(nn.Module):
    """RegNet with a 3x3 stem of stride 1 and one place for attention per block.

    Raises UsageError for methods that replace a dense 3x3 convolution: here it is grouped.
    """

    def __init__(
        self, shape: Shape, *, num_classes: int = 1000, in_channels: int = 3, attention: AttentionSpec | None = None
    ) -> None:
        super().__init__()
        self.spec = attention or AttentionSpec()
        if self.spec.card.role == "conv":
            raise UsageError(f"method {self.spec.method!r} replaces a dense 3x3 convolution; RegNets have none")
        self.depths, self.feature_channels = shape.depths, shape.widths
        self.conv1 = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        inputs = STEM
        for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
            blocks = []
            for i in range(depth):
                made = self.spec.residual(Site(width, stage, i, depth), len(shape.depths))
                blocks.append(RegNetBlock(inputs, width, STRIDES[stage] if i == 0 else 1, shape, made))
                inputs = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            after = self.spec.between(width, stage, len(shape.depths))
            if after is not None:
                self.add_module(f"attention_after{stage + 1}", after)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the map after every stage, `[n c h w]` each."""
        x = norm_act(self.conv1(x), self.bn1, self.relu)
        maps = []
        for stage in range(len(self.depths)):
            x = getattr(self, f"layer{stage + 1}")(x)
            after = getattr(self, f"attention_after{stage + 1}", None)
            x = x if after is None else after(x)
            maps.append(x)
        return maps

    def forward_head(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of the last stage's map."""
        return self.fc(self.avgpool(x).flatten(1))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of images `[n c h w]`."""
        return self.forward_head(self.forward_features(x)[-1])


def _named(name: str) -> Callable[..., RegNet]:
    def build(*, attention: AttentionSpec | None = None, **kwargs: Any) -> RegNet:
        return RegNet(SHAPES[name], attention=attention, **kwargs)

    build.__doc__ = f"Build {name}."
    return build


regnetx_200mf_cifar, regnetx_400mf_cifar, regnety_400mf_cifar = (_named(name) for name in SHAPES)
