"""ResNet-18/34/50/101/152 (He et al., Deep Residual Learning for Image Recognition, 2016), keys as torchvision's."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from excite.backbones.blocks import BasicBlock, Block, Bottleneck, conv1x1, conv3x3, initialise, projection
from excite.backbones.lists import whole_numbers
from excite.backbones.network import StagedNetwork
from excite.backbones.placement import AttentionSpec, Site
from excite.errors import UsageError, unknown
from excite.types import FeatureMap

STEMS = ("imagenet", "cifar", "deep")


def _stem_conv(stem: str, in_channels: int, width: int, inner: tuple[int, ...]) -> nn.Module:
    if stem == "imagenet":
        return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    if stem == "cifar":
        return conv3x3(in_channels, width)
    first, second = inner
    return nn.Sequential(
        conv3x3(in_channels, first, 2),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        conv3x3(first, second),
        nn.BatchNorm2d(second),
        nn.ReLU(inplace=True),
        conv3x3(second, width),
    )


class ResNet(StagedNetwork):
    """A residual network with one place for attention per block.

    block: block class; blocks_per_stage; widths: planes per stage; stem: "imagenet" (7x7/2 and a max pool/2), "cifar"
    (3x3/1) or "deep" (three 3x3 with `stem_widths` inner channels, 32 and 32 unless told otherwise, and a max pool/2);
    avg_down: projections average over 2x2 and keep stride 1 (the "d" variants); attention: what goes where.
    Raises UsageError for lists of wrong lengths or entries and for stem widths without the deep stem.
    """

    stages = 4

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks_per_stage: Sequence[int] | str,
        *,
        widths: Sequence[int] | str = (64, 128, 256, 512),
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: str = "imagenet",
        stem_widths: Sequence[int] | str | None = None,
        avg_down: bool = False,
        attention: AttentionSpec | None = None,
    ) -> None:
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        if stem_widths is not None and stem != "deep":
            raise UsageError(f"option stem_widths={stem_widths!r} belongs to stem='deep'; this stem is {stem!r}")
        inner = whole_numbers((32, 32) if stem_widths is None else stem_widths, "stem_widths", 2, "inner convolution")
        planes = whole_numbers(widths, "widths", self.stages)
        super().__init__(attention, whole_numbers(blocks_per_stage, "blocks_per_stage", self.stages))
        self.block, self.avg_down = block, avg_down
        self.conv1 = _stem_conv(stem, in_channels, planes[0], inner)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, stride=2, padding=1)
        self.feature_channels = tuple(w * block.expansion for w in planes)
        for stage, width in enumerate(planes):
            entry = self.feature_channels[stage - 1] if stage else planes[0]
            self.add_stage(stage, self._blocks(stage, entry, width), self.feature_channels[stage])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.feature_channels[-1], num_classes)
        initialise(self)
        self.connect_stages()

    def _blocks(self, stage: int, in_channels: int, planes: int) -> list[Block]:
        depth, stages, out_channels = self.depths[stage], len(self.depths), self.feature_channels[stage]
        blocks: list[Block] = []
        for i in range(depth):
            stride = 2 if i == 0 and stage > 0 else 1
            attention = self.spec.residual(Site(out_channels, stage, i, depth), stages)
            entry = planes if self.block is Bottleneck else in_channels
            spatial = self.spec.conv3x3(Site(entry, stage, i, depth), stages, planes, stride)
            downsample = self.make_shortcut(in_channels, out_channels, stride)
            blocks.append(self.block(in_channels, planes, stride, downsample, attention, spatial))
            in_channels = out_channels
        return blocks

    def make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """Return the projection (1x1 and batch norm), or None where the shapes agree."""
        plain = stride == 1 and in_channels == out_channels
        if plain or not self.avg_down:
            return projection(in_channels, out_channels, stride)
        pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels))

    @property
    def stem_stride(self) -> int:
        """What the stem shrinks the map by after its rectifier: 2 with a max pool."""
        return 2 if isinstance(self.maxpool, nn.MaxPool2d) else 1

    def after_entry(self, x: FeatureMap) -> FeatureMap:
        """Return what the first stage sees of the stem's map."""
        return self.maxpool(x)


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}

resnet18, resnet34, resnet50, resnet101, resnet152 = (
    partial(ResNet, block, blocks_per_stage=depths) for block, depths in DEPTHS.values()
)
resnet18_cifar, resnet34_cifar, resnet50_cifar, resnet101_cifar, resnet152_cifar = (
    partial(ResNet, block, blocks_per_stage=depths, stem="cifar") for block, depths in DEPTHS.values()
)
