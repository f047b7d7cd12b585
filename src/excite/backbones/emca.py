"""EMCA networks: ResNets and MobileNetV2 whose blocks see the descriptors of earlier blocks.

The descriptors are explicit: the network keeps a local tuple, every block reads fixed entries of it and adds its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from excite.backbones import mobilenetv2
from excite.backbones.blocks import BasicBlock
from excite.backbones.emca_blocks import EmcaBasicBlock, EmcaBlock, EmcaBottleneck, EmcaInvertedResidual
from excite.backbones.emca_plan import EmcaSpec
from excite.backbones.mobilenetv2 import MobileNetV2
from excite.backbones.names import BACKBONES
from excite.backbones.resnet import DEPTHS, ResNet
from excite.backbones.resnet_small import SmallResNet
from excite.errors import UsageError, near
from excite.registry import create_attention, method_options
from excite.types import Descriptor, FeatureMap

NETWORK_OPTIONS = ("form", "stages", "blocks", "where")
BACKBONE_OPTIONS = {
    "resnet": ("stem",),
    "resnet_small": ("stem", "shortcut", "width"),
    "mobilenetv2": ("stem", "width_mult", "dropout", "channels"),
}


class EmcaNetwork(nn.Module):
    """The bank and its use, mixed in before a network's own class."""

    spec: Any  # EmcaSpec; the networks it is mixed into say AttentionSpec
    stem_squeeze: nn.Module | None

    def connect(self, groups: Sequence[Sequence[nn.Module]]) -> None:
        """Tell every block of `groups` (one per stage) what it reads and whether it is read."""
        used = self.spec.used()
        squeeze = self._new_squeeze
        self.stem_squeeze = squeeze() if 0 in used else None
        index = 1
        for stage, blocks in enumerate(groups):
            for i, block in enumerate(blocks):
                assert isinstance(block, EmcaBlock)
                sources = self.spec.plan[stage][i] or ()
                block.connect(sources, squeeze() if index in used else None, self.spec.where)
                index += 1

    def _new_squeeze(self) -> nn.Module:
        made = create_attention(self.spec.method, 16).squeeze
        assert isinstance(made, nn.Module)
        return made

    def start(self, x: FeatureMap) -> tuple[Descriptor | None, ...]:
        """Return the bank that holds the stem's descriptor."""
        return (None if self.stem_squeeze is None else self.stem_squeeze(x),)

    @staticmethod
    def step(
        block: nn.Module, x: FeatureMap, bank: tuple[Descriptor | None, ...]
    ) -> tuple[FeatureMap, tuple[Descriptor | None, ...]]:
        """Run one block; return its output and the bank with its descriptor added."""
        sources: tuple[int, ...] = block.sources  # type: ignore[assignment]
        x, descriptor = block(x, tuple(bank[i] for i in sources))
        return x, (*bank, descriptor)


class EmcaResNet(EmcaNetwork, ResNet):
    """ResNet with EMCA."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connect([getattr(self, f"layer{s + 1}") for s in range(len(self.depths))])

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the map after every stage, `[n c h w]` each."""
        x = self.forward_stem(x)
        maps, bank = [], self.start(x)
        for stage in range(len(self.depths)):
            for block in getattr(self, f"layer{stage + 1}"):
                x, bank = self.step(block, x, bank)
            maps.append(x)
        return maps


class EmcaSmallResNet(EmcaResNet, SmallResNet):
    """ResNet of the CIFAR family with EMCA."""

    basic_block = EmcaBasicBlock


class EmcaMobileNetV2(EmcaNetwork, MobileNetV2):
    """MobileNetV2 with EMCA; its seven groups of equal channels are the stages."""

    inverted_residual = EmcaInvertedResidual

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        blocks: Iterator[nn.Module] = iter(self.features[1:-1])
        self.connect([[next(blocks) for _ in range(n)] for _, _, n, _ in mobilenetv2.STAGES])

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the last map of every resolution from a quarter on."""
        x = self.features[0](x)
        maps, bank = [], self.start(x)
        for i, layer in enumerate(self.features):
            if i == 0:
                continue
            if isinstance(layer, EmcaBlock):
                x, bank = self.step(layer, x, bank)
            else:
                x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps


def create_emca(method: str, backbone: str, *, num_classes: int, in_channels: int, **options: Any) -> nn.Module:
    """Build an EMCA network, such as method "emca_eca" on backbone "resnet50".

    options: `form`, `stages`, `blocks`, `where` (see EmcaSpec; "released" takes "all" stages and 1 block of each unless
    told otherwise), the gate's options, and the backbone's (stem, width_mult, ...).
    Raises UsageError for a backbone without an EMCA form and for unknown options.
    """
    entry = BACKBONES[backbone]
    if entry.module not in BACKBONE_OPTIONS:
        raise UsageError(f"{method}: backbone {backbone!r} has no EMCA form; the resnets and mobilenet_v2 have one")
    network, gate, own = _sort(f"{method}_{backbone}", method, BACKBONE_OPTIONS[entry.module], options)
    common = {"num_classes": num_classes, "in_channels": in_channels}
    cifar = backbone.endswith("_cifar")
    if entry.module == "mobilenetv2":
        depths = tuple(n for _, _, n, _ in mobilenetv2.STAGES)
        build: Callable[..., nn.Module] = EmcaMobileNetV2
        own = {"stem": "cifar" if cifar else "imagenet", **own}
        args: tuple[Any, ...] = ()
    elif entry.module == "resnet_small":
        depth = int(backbone.removeprefix("resnet"))
        depths, build, args = ((depth - 2) // 6,) * 3, EmcaSmallResNet, (depth,)
    else:
        block, depths = DEPTHS[int(backbone.removesuffix("_cifar").removeprefix("resnet"))]
        build, args = EmcaResNet, (EmcaBasicBlock if block is BasicBlock else EmcaBottleneck, depths)
        own = {"stem": "cifar" if cifar else "imagenet", **own}
    return build(*args, attention=_spec(method, gate, depths, network), **common, **own)


def _spec(method: str, gate: Mapping[str, Any], depths: tuple[int, ...], network: Mapping[str, Any]) -> EmcaSpec:
    form = network.get("form", "paper")
    if form == "released":
        if network.get("where", "branch") != "branch":
            raise UsageError("emca: the released form works on the residual branch only; leave `where` out")
        network = {"stages": "all", "blocks": 1, **network, "where": "branch"}
    return EmcaSpec(method, gate, depths=tuple(depths), **network)


def _sort(
    name: str, method: str, backbone: Sequence[str], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort options into the network's, the gate's and the backbone's."""
    gate = set(method_options(method)) - {"form", "scales"}
    known = {**dict.fromkeys(NETWORK_OPTIONS, 0), **dict.fromkeys(gate, 1), **dict.fromkeys(backbone, 2)}
    sorted_options: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
    for key, value in options.items():
        if key not in known:
            close = near(key, known)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(sorted(known))}"
            raise UsageError(f"model {name!r} has no option {key!r}; {remedy}")
        sorted_options[known[key]][key] = value
    return sorted_options
