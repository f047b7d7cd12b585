"""ResNet-18/34/50/101/152 (He et al., Deep Residual Learning for Image Recognition, 2016), keys as torchvision's."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from excite.backbones.blocks import BasicBlock, Bottleneck, conv1x1, conv3x3, initialise
from excite.backbones.placement import AttentionSpec, Site
from excite.errors import unknown
from excite.ops import norm_act
from excite.types import FeatureMap

Block = type[BasicBlock] | type[Bottleneck]
STEMS = ("imagenet", "cifar", "deep")


def _stem_conv(stem: str, in_channels: int, width: int, stem_widths: Sequence[int]) -> nn.Module:
    if stem == "imagenet":
        return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    if stem == "cifar":
        return conv3x3(in_channels, width)
    first, second = stem_widths
    return nn.Sequential(
        conv3x3(in_channels, first, 2),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        conv3x3(first, second),
        nn.BatchNorm2d(second),
        nn.ReLU(inplace=True),
        conv3x3(second, width),
    )


class ResNet(nn.Module):
    """A residual network with one place for attention per block.

    block: block class; depths: blocks per stage; widths: planes per stage; stem: "imagenet" (7x7/2 and a max pool/2)
    or "cifar" (3x3/1) or "deep" (three 3x3 with `stem_widths` inner channels, and a max pool/2); avg_down: projections
    average over 2x2 and keep stride 1 (the "d" variants); attention: what goes where. `forward_features` gives the map
    after every stage.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: str = "imagenet",
        stem_widths: Sequence[int] = (32, 32),
        avg_down: bool = False,
        attention: AttentionSpec | None = None,
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        self.block, self.depths, self.spec = block, tuple(depths), attention or AttentionSpec()
        self.channels, self.avg_down = widths[0], avg_down
        self.conv1 = _stem_conv(stem, in_channels, widths[0], stem_widths)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, stride=2, padding=1)
        self.feature_channels = tuple(w * block.expansion for w in widths)
        for stage, planes in enumerate(widths):
            self.add_module(f"layer{stage + 1}", self._stage(stage, planes))
            after = self.spec.between(self.feature_channels[stage], stage, len(self.depths))
            if after is not None:
                self.add_module(f"attention_after{stage + 1}", after)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.feature_channels[-1], num_classes)
        initialise(self)

    def _stage(self, stage: int, planes: int) -> nn.Sequential:
        blocks, stages = self.depths[stage], len(self.depths)
        out_channels = planes * self.block.expansion
        made = []
        for i in range(blocks):
            stride = 2 if i == 0 and stage > 0 else 1
            attention = self.spec.residual(Site(out_channels, stage, i, blocks), stages)
            entry = planes if self.block is Bottleneck else self.channels
            spatial = self.spec.conv3x3(Site(entry, stage, i, blocks), stages, planes, stride)
            downsample = self.make_shortcut(self.channels, out_channels, stride)
            made.append(self.block(self.channels, planes, stride, downsample, attention, spatial))
            self.channels = out_channels
        return nn.Sequential(*made)

    def make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """Return the projection (1x1 and batch norm), or None where the shapes agree."""
        if stride == 1 and in_channels == out_channels:
            return None
        if self.avg_down:
            pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            return nn.Sequential(pool, conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels))
        return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))

    def forward_stem(self, x: FeatureMap) -> FeatureMap:
        """Return the map before the first stage."""
        return self.maxpool(norm_act(self.conv1(x), self.bn1, self.relu))

    def forward_stage(self, stage: int, x: FeatureMap) -> FeatureMap:
        """Run stage number `stage` (from 0) and the attention behind it, if there is any."""
        x = getattr(self, f"layer{stage + 1}")(x)
        after = getattr(self, f"attention_after{stage + 1}", None)
        return x if after is None else after(x)

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the map after every stage, `[n c h w]` each."""
        maps = []
        x = self.forward_stem(x)
        for stage in range(len(self.depths)):
            x = self.forward_stage(stage, x)
            maps.append(x)
        return maps

    def forward_head(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of the last stage's map."""
        return self.fc(self.avgpool(x).flatten(1))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of images `[n c h w]`."""
        return self.forward_head(self.forward_features(x)[-1])


DEPTHS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def _named(depth: int, stem: str) -> Callable[..., ResNet]:
    def build(
        *,
        attention: AttentionSpec | None = None,
        stem: str = stem,
        blocks_per_stage: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> ResNet:
        block, depths = DEPTHS[depth]
        return ResNet(block, blocks_per_stage or depths, attention=attention, stem=stem, **kwargs)

    build.__doc__ = f"Build ResNet-{depth} ({stem} stem, blocks_per_stage {DEPTHS[depth][1]} unless told otherwise)."
    return build


resnet18, resnet34, resnet50, resnet101, resnet152 = (_named(depth, "imagenet") for depth in DEPTHS)
resnet18_cifar, resnet34_cifar, resnet50_cifar, resnet101_cifar, resnet152_cifar = (
    _named(depth, "cifar") for depth in DEPTHS
)
