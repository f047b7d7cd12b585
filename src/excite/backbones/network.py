"""What the networks have in common: the bank of descriptors, stages of blocks, maps and logits."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from excite.backbones.blocks import Bank, Block, step
from excite.backbones.features import FeatureInfo, Level, level_indices
from excite.backbones.placement import AttentionSpec
from excite.errors import UsageError, unknown
from excite.ops import norm_act
from excite.types import FeatureMap

# Any: timm's interface: texts, numbers and tuples by key.

POOLS: dict[str, type[nn.Module]] = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}


class Network(nn.Module):
    """A classification network that owns a bank: the descriptors that later blocks read, none for most methods.

    The bank is a local tuple of each pass, so nothing is stored and every block's sources are static numbers.
    spec: what goes where; feature_channels: of the maps that `forward_features` returns; classifier_name: where the
    last linear layer is. out_indices: the levels that the network returns instead of logits, None for logits;
    drop_rate: dropout before the classifier; global_pool: "avg", "max" or "" (none, without a classifier);
    last_map_only: `forward_features` returns its last map, as timm's networks do; pretrained_cfg: how images are
    prepared, in timm's words.
    """

    feature_channels: tuple[int, ...]
    stem_squeeze: nn.Module | None
    classifier_name: str
    num_classes: int
    out_indices: tuple[int, ...] | None = None
    drop_rate = 0.0
    global_pool = "avg"
    grad_checkpointing = False
    last_map_only = False
    pretrained_cfg: dict[str, Any]  # as timm has it: texts, numbers and tuples

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

    def levels(self) -> list[Level]:
        """Return what the network can say of its maps: the stem's first, then those of `forward_features`."""
        raise NotImplementedError

    def blocks(self) -> list[Block]:
        """Return all blocks, in order."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def forward_levels(self, x: FeatureMap, indices: Sequence[int]) -> list[FeatureMap]:
        """Return the maps of some levels (ascending), `[n c h w]` each; what lies behind the last one does not run."""
        raise NotImplementedError

    def keep_levels(self, indices: tuple[int, ...]) -> None:
        """Return these levels from now on; what lies behind the last one, and the classifier, is taken away."""
        self.reset_classifier(0)
        self.out_indices = indices

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, reductions and modules of the levels."""
        levels = self.levels()
        return FeatureInfo(levels, range(len(levels)) if self.out_indices is None else self.out_indices)

    @property
    def num_features(self) -> int:
        """The numbers per image that the classifier sees."""
        return self.feature_channels[-1]

    head_hidden_size = num_features

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer, an `nn.Identity` where there is none."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in; 0 classes: none. Raises UsageError for a pool that there is not."""
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("", *POOLS):
            raise unknown("global_pool", pool, ("", *POOLS))
        if type(num_classes) is not int or num_classes < 0:
            raise UsageError(f"num_classes={num_classes!r}; expected a whole number, 0 for no classifier")
        if pool == "" and num_classes:
            raise UsageError("global_pool='' leaves the map as it is, so there is no classifier: give num_classes=0")
        like = next(self.parameters())
        layer = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.initialise_classifier(layer)
        self.set_submodule(self.classifier_name, layer.to(like.device, like.dtype))
        self.num_classes, self.global_pool = num_classes, pool
        card = getattr(self, "excite_card", None)
        if is_dataclass(card) and not isinstance(card, type):
            self.excite_card = replace(card, num_classes=num_classes, class_names=None)

    def initialise_classifier(self, layer: nn.Module) -> None:
        """Initialise a fresh classifier: torch's default."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the gradients, and run the blocks twice (in training)."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that group parameters for layer-wise decay: by block, coarse: by stage."""
        raise NotImplementedError

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The same as `pretrained_cfg`, by timm's older name."""
        return self.pretrained_cfg

    @property
    def recomputes(self) -> bool:
        """Whether blocks run twice."""
        return self.grad_checkpointing and self.training and torch.is_grad_enabled()

    def forward_maps(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the maps of `feature_channels`, `[n c h w]` each, finest first."""
        return self.forward_levels(x, range(1, len(self.feature_channels) + 1))

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the maps of `feature_channels`, `[n c h w]` each, finest first."""
        maps = self.forward_maps(x)
        return maps[-1] if self.last_map_only else maps  # type: ignore[return-value]  # as timm's, where timm asked

    def forward_intermediates(
        self,
        x: FeatureMap,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[FeatureMap] | tuple[FeatureMap, list[FeatureMap]]:
        """Return the maps of some levels, and before them the last map unless they are wanted alone (as timm's).

        Raises UsageError for another format than NCHW and for a final norm, which there is not.
        """
        if norm or output_fmt != "NCHW":
            raise UsageError("maps of these networks are NCHW and have no final norm")
        count = len(self.feature_channels) + 1
        wanted = level_indices(indices, count)
        if intermediates_only:
            stop = wanted if stop_early else tuple(sorted({*wanted, count - 1}))
            return self.forward_levels(x, stop)[: len(wanted)]
        maps = self.forward_levels(x, tuple(sorted({*wanted, count - 1})))
        return maps[-1], maps[: len(wanted)]

    def forward_head(self, x: FeatureMap, pre_logits: bool = False) -> torch.Tensor:
        """Return the logits `[n classes]` of the last map; pre_logits: what the classifier sees, `[n c]`."""
        x = self.pool(x)
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classify(x)

    def pool(self, x: FeatureMap) -> torch.Tensor:
        """Return the last map pooled, `[n c]`; as it is where there is no pool."""
        raise NotImplementedError

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `[n classes]` of `[n c]`."""
        raise NotImplementedError

    def forward(self, x: FeatureMap) -> torch.Tensor | list[FeatureMap]:
        """Return the logits `[n classes]` of images `[n c h w]`, or the maps of `out_indices`."""
        if self.out_indices is not None:
            return self.forward_levels(x, self.out_indices)
        return self.forward_head(self.forward_maps(x)[-1])


class StagedNetwork(Network):
    """A network of stages `layer1`, `layer2`, ..., each perhaps with attention behind it; `fc` classifies the mean.

    `forward_features` gives the map after every stage.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    avgpool: nn.Module
    fc: nn.Module
    classifier_name = "fc"

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

    def levels(self) -> list[Level]:
        """Return the stem's level and one per stage."""
        first = [m for m in self.conv1.modules() if isinstance(m, nn.Conv2d)]
        reduction = math.prod(m.stride[0] for m in first)
        levels = [Level(first[-1].out_channels, reduction, "relu")]
        reduction *= self.stem_stride
        for stage, channels in enumerate(self.feature_channels, 1):
            layer = getattr(self, f"layer{stage}", None)
            if layer is None:  # taken away: nobody asks for what follows
                break
            reduction *= math.prod(block.stride for block in layer)
            after = f"attention_after{stage}"
            levels.append(Level(channels, reduction, after if hasattr(self, after) else f"layer{stage}"))
        return levels

    @property
    def stem_stride(self) -> int:
        """What the stem shrinks the map by after its rectifier."""
        return 1

    def keep_levels(self, indices: tuple[int, ...]) -> None:
        """Return these levels from now on; the stages behind the last one, and the classifier, are taken away."""
        super().keep_levels(indices)
        for stage in range(max(indices), len(self.depths)):
            for name in (f"layer{stage + 1}", f"attention_after{stage + 1}"):
                if hasattr(self, name):
                    delattr(self, name)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that group parameters for layer-wise decay: by block, coarse: by stage."""
        after = (r"^attention_after(\d+)", (99999,))  # timm's mark for: with the group before
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^(?:conv1|bn1)", "blocks": [(blocks, None), after]}

    def forward_entry(self, x: FeatureMap) -> FeatureMap:
        """Return the map of the stem's convolution."""
        return norm_act(self.conv1(x), self.bn1, self.relu)

    def after_entry(self, x: FeatureMap) -> FeatureMap:
        """Return what the first stage sees of the stem's map."""
        return x

    def forward_stem(self, x: FeatureMap) -> FeatureMap:
        """Return the map before the first stage."""
        return self.after_entry(self.forward_entry(x))

    def forward_stage(self, stage: int, x: FeatureMap, bank: Bank = ()) -> tuple[FeatureMap, Bank]:
        """Run stage number `stage` (from 0) and the attention behind it; return the map and the bank after it."""
        layer = getattr(self, f"layer{stage + 1}")
        recompute = self.recomputes
        if self.linked[stage] or recompute:
            for block in layer:
                x, bank = step(block, x, bank, recompute)
        else:
            x = layer(x)
        after = getattr(self, f"attention_after{stage + 1}", None)
        return (x if after is None else after(x)), bank

    def forward_levels(self, x: FeatureMap, indices: Sequence[int]) -> list[FeatureMap]:
        """Return the maps of some levels (ascending), `[n c h w]` each: 0 is the stem, then the stages."""
        x = self.forward_entry(x)
        maps = [x] if 0 in indices else []
        x = self.after_entry(x)
        bank = self.start(x)
        for stage in range(max(indices)):
            x, bank = self.forward_stage(stage, x, bank)
            if stage + 1 in indices:
                maps.append(x)
        return maps

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in; 0 classes: none. Raises UsageError for a pool that there is not."""
        before = self.global_pool
        super().reset_classifier(num_classes, global_pool)
        if self.global_pool != before:
            self.avgpool = POOLS[self.global_pool](1) if self.global_pool else nn.Identity()

    def pool(self, x: FeatureMap) -> torch.Tensor:
        """Return the last map pooled, `[n c]`; as it is where there is no pool."""
        x = self.avgpool(x)
        return x.flatten(1) if self.global_pool else x

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `[n classes]` of `[n c]`."""
        return self.fc(x)


def refuse_conv_methods(spec: AttentionSpec, network: str) -> None:
    """Raise UsageError for methods that replace a dense 3x3 convolution, for networks that have none."""
    if spec.card.role == "conv":
        raise UsageError(f"method {spec.method!r} replaces a dense 3x3 convolution; {network} has none")
