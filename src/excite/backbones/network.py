"""What the networks have in common: the bank of descriptors, stages of blocks, maps and logits."""

from collections.abc import Iterable, Sequence

from torch import nn

from excite.backbones.blocks import Bank, Block, step
from excite.backbones.placement import AttentionSpec
from excite.errors import UsageError
from excite.ops import norm_act
from excite.types import FeatureMap


class Network(nn.Module):
    """A classification network that owns a bank: the descriptors that later blocks read, none for most methods.

    The bank is a local tuple of each pass, so nothing is stored and every block's sources are static numbers.
    spec: what goes where; feature_channels: of the maps that `forward_features` returns.
    """

    feature_channels: tuple[int, ...]
    stem_squeeze: nn.Module | None

    def __init__(self, attention: AttentionSpec | None, depths: Sequence[int]) -> None:
        super().__init__()
        self.depths = tuple(depths)
        self.spec = (attention or AttentionSpec()).for_depths(self.depths)

    def connect(self, stages: Iterable[Sequence[Block]]) -> None:
        """Tell every block of every stage what it reads, and whether it is read."""
        positions = {index: i for i, index in enumerate(sorted(self.spec.used()))}
        self.stem_squeeze = self.spec.squeeze(0)
        linked, index = [], 1
        for stage, blocks in enumerate(stages):
            for i, block in enumerate(blocks):
                sources = tuple(positions[s] for s in self.spec.sources(stage, i))
                block.connect(sources, self.spec.squeeze(index), self.spec.where)
                index += 1
            linked.append(any(block.sources or block.squeeze is not None for block in blocks))
        self.linked = tuple(linked)

    def start(self, x: FeatureMap) -> Bank:
        """Return the bank before the first block, from the stem's map: empty where no block reads the stem."""
        return () if self.stem_squeeze is None else (self.stem_squeeze(x),)

    def parts(self) -> list[list[nn.Module]]:
        """Return the modules of the stem and of each stage that `forward_features` gives a map of, in this order."""
        raise NotImplementedError

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the maps of `feature_channels`, `[n c h w]` each, finest first."""
        raise NotImplementedError

    def forward_head(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of the last map."""
        raise NotImplementedError

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of images `[n c h w]`."""
        return self.forward_head(self.forward_features(x)[-1])


class StagedNetwork(Network):
    """A network of stages `layer1`, `layer2`, ..., each perhaps with attention behind it; `fc` classifies the mean.

    `forward_features` gives the map after every stage.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    avgpool: nn.Module
    fc: nn.Module

    def add_stage(self, stage: int, blocks: Sequence[Block], channels: int) -> None:
        """Register stage number `stage` (from 0) of blocks that end in `channels`, and the attention behind it."""
        self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        after = self.spec.between(channels, stage, len(self.depths))
        if after is not None:
            self.add_module(f"attention_after{stage + 1}", after)

    def connect_stages(self) -> None:
        """Connect the blocks of all stages."""
        self.connect([getattr(self, f"layer{stage + 1}") for stage in range(len(self.depths))])

    def parts(self) -> list[list[nn.Module]]:
        """Return the modules of the stem and of every stage, with the attention behind it."""
        children = dict(self.named_children())
        stages = (
            [children.get(f"{kind}{stage + 1}") for kind in ("layer", "attention_after")]
            for stage in range(len(self.depths))
        )
        return [[self.conv1, self.bn1], *([m for m in stage if m is not None] for stage in stages)]

    def forward_stem(self, x: FeatureMap) -> FeatureMap:
        """Return the map before the first stage."""
        return norm_act(self.conv1(x), self.bn1, self.relu)

    def forward_stage(self, stage: int, x: FeatureMap, bank: Bank = ()) -> tuple[FeatureMap, Bank]:
        """Run stage number `stage` (from 0) and the attention behind it; return the map and the bank after it."""
        layer = getattr(self, f"layer{stage + 1}")
        if self.linked[stage]:
            for block in layer:
                x, bank = step(block, x, bank)
        else:
            x = layer(x)
        after = getattr(self, f"attention_after{stage + 1}", None)
        return (x if after is None else after(x)), bank

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the map after every stage, `[n c h w]` each."""
        x = self.forward_stem(x)
        maps, bank = [], self.start(x)
        for stage in range(len(self.depths)):
            x, bank = self.forward_stage(stage, x, bank)
            maps.append(x)
        return maps

    def forward_head(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of the last stage's map."""
        return self.fc(self.avgpool(x).flatten(1))


def refuse_conv_methods(spec: AttentionSpec, network: str) -> None:
    """Raise UsageError for methods that replace a dense 3x3 convolution, for networks that have none."""
    if spec.card.role == "conv":
        raise UsageError(f"method {spec.method!r} replaces a dense 3x3 convolution; {network} has none")
