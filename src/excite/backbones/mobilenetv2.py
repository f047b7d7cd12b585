"""MobileNetV2 (Sandler et al., CVPR 2018), keys as torchvision's."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from excite.backbones.blocks import Bank, Block, initialise, step
from excite.backbones.features import Level
from excite.backbones.lists import whole_numbers
from excite.backbones.network import Network, refuse_conv_methods
from excite.backbones.placement import AttentionSpec, Site
from excite.errors import UsageError, unknown
from excite.methods.widths import round_channels
from excite.ops import norm_act
from excite.types import FeatureMap

# Any: timm's interface: patterns and numbers by name.

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the activated map."""
        if len(self) != 3:  # changed by somebody
            return super().forward(x)
        return norm_act(self[0](x), self[1], self[2])


class InvertedResidual(Block):
    """expand 1x1 - depth-wise 3x3 - project 1x1 - tail `attention(bn(z)) (+ x)`, without an activation at the end."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, attention: nn.Module | None
    ) -> None:
        super().__init__()
        self.stride = stride
        hidden = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [ConvNormAct(in_channels, hidden, 1)]
        layers += [
            ConvNormAct(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.attention = attention
        self.has_shortcut = stride == 1 and in_channels == out_channels

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.conv[-1]

    @property
    def last_act(self) -> None:
        """None: the block is linear at its end."""
        return None

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        for i in range(len(self.conv) - 1):
            x = self.conv[i](x)
        return x

    def shortcut(self, x: FeatureMap) -> FeatureMap | None:
        """Return the input where the shapes agree."""
        return x if self.has_shortcut else None


def _with_published_kernels(attention: AttentionSpec, channels: Sequence[int]) -> AttentionSpec:
    # ECA-Net's MobileNetV2 takes k = 1 below 96 output channels and k = 3 from there on.
    if attention.method != "eca" or "kernel_size" in attention.options:
        return attention
    sizes = tuple(1 if c < 96 else 3 for c in channels)
    return AttentionSpec("eca", {**attention.options, "kernel_size": sizes}, attention.placement)


def _widths(width_mult: float, channels: Sequence[int] | str | None) -> tuple[int, ...]:
    if channels is None:
        if not isinstance(width_mult, int | float) or isinstance(width_mult, bool) or width_mult <= 0:
            raise UsageError(f"option width_mult={width_mult!r}; expected a positive number")
        inner = (round_channels(c * width_mult, 8) for c in (32, *(c for _, c, _, _ in STAGES)))
        return (*inner, round_channels(1280 * max(1.0, width_mult), 8))
    if width_mult != 1.0:
        raise UsageError(f"mobilenet_v2: channels={channels!r} and width_mult={width_mult!r}; give one of them")
    return whole_numbers(channels, "channels", len(STAGES) + 2, "first layer, stage and last layer")


class MobileNetV2(Network):
    """MobileNetV2 with one place for attention per inverted residual (on its output channels).

    width_mult: factor on all channels; stem: "imagenet" (output stride 32) or "cifar" (8, for 32x32 images);
    dropout: before the classifier (ECA-Net trains with 0.25). Placements count seven stages of equal channels.
    channels: of the first layer, the seven stages and the last layer, instead of a width_mult (authors round
    differently).
    Raises UsageError for methods that replace a 3x3 convolution: here it is depth-wise.
    """

    classifier_name = "classifier.1"

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width_mult: float = 1.0,
        channels: Sequence[int] | str | None = None,
        dropout: float = 0.2,
        stem: str = "imagenet",
        attention: AttentionSpec | None = None,
    ) -> None:
        super().__init__(attention, [blocks for _, _, blocks, _ in STAGES])
        if stem not in ("imagenet", "cifar"):
            raise unknown("stem", stem, ("imagenet", "cifar"))
        refuse_conv_methods(self.spec, "MobileNetV2")
        entry, *widths, last = _widths(width_mult, channels)
        self.spec = _with_published_kernels(self.spec, widths)
        cifar = stem == "cifar"
        features: list[nn.Module] = [ConvNormAct(in_channels, entry, 3, 1 if cifar else 2)]
        taps: list[int] = []
        stages: list[list[InvertedResidual]] = []
        for stage, (expansion, _, depth, stride) in enumerate(STAGES):
            if cifar and stage == 1:
                stride = 1
            if stride == 2 and stage > 1:
                taps.append(len(features) - 1)
            blocks = []
            for i in range(depth):
                attention_module = self.spec.residual(Site(widths[stage], stage, i, depth), len(STAGES))
                blocks.append(
                    InvertedResidual(entry, widths[stage], stride if i == 0 else 1, expansion, attention_module)
                )
                entry = widths[stage]
            features += blocks
            stages.append(blocks)
            after = self.spec.between(entry, stage, len(STAGES))
            if after is not None:
                self.add_module(f"attention_after{len(features) - 1}", after)
        features.append(ConvNormAct(entry, last, 1))
        self.features = nn.Sequential(*features)
        self.taps = (*taps, len(features) - 1)
        self.first_channels = widths[0]
        self.feature_channels = (widths[1], widths[2], widths[4], last)
        linear = nn.Linear(last, num_classes)
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)
        initialise(self)
        self.initialise_classifier(linear)
        self.connect(stages)

    def parts(self) -> list[list[nn.Module]]:
        """Return the modules of the first layer, and those up to each map, with the attention between them."""
        features, start = list(self.features), 1
        parts = [features[:1]]
        for tap in self.taps:
            after = (getattr(self, f"attention_after{i}", None) for i in range(start, tap + 1))
            parts.append([*features[start : tap + 1], *(m for m in after if m is not None)])
            start = tap + 1
        return parts

    def levels(self) -> list[Level]:
        """Return the levels: the first stage's map, then those of `forward_features`."""
        levels, reduction = [], 1
        ends = dict(zip((1, *self.taps), (self.first_channels, *self.feature_channels), strict=True))
        for i, layer in enumerate(self.features):
            # What is no block is a sequence that begins with a convolution.
            stride = layer.stride if isinstance(layer, Block) else layer[0].stride[0]  # type: ignore[index]
            reduction *= stride
            if i in ends:
                after = f"attention_after{i}"
                levels.append(Level(ends[i], reduction, after if hasattr(self, after) else f"features.{i}"))
        return levels

    def keep_levels(self, indices: tuple[int, ...]) -> None:
        """Return these levels from now on; the layers behind the last one, and the classifier, are taken away."""
        super().keep_levels(indices)
        last = (1, *self.taps)[max(indices)]
        for i in range(last + 1, len(self.features)):
            if hasattr(self, f"attention_after{i}"):
                delattr(self, f"attention_after{i}")
        self.features = self.features[: last + 1]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that group parameters for layer-wise decay: by layer, coarse: by map."""
        after = (r"^attention_after(\d+)", (99999,))  # timm's mark for: with the group before
        ends = [f"(?:{'|'.join(map(str, range(a + 1, b + 1)))})" for a, b in pairwise((0, 1, *self.taps))]
        blocks = [(rf"^features\.{end}\.", (i,)) for i, end in enumerate(ends)]
        return {"stem": r"^features\.0\.", "blocks": [*(blocks if coarse else [(r"^features\.(\d+)", None)]), after]}

    def forward_levels(self, x: FeatureMap, indices: Sequence[int]) -> list[FeatureMap]:
        """Return the maps of some levels (ascending), `[n c h w]` each: 0 is the first stage's."""
        wanted = [(1, *self.taps)[i] for i in indices]
        maps: list[FeatureMap] = []
        bank: Bank = ()
        recompute = self.recomputes
        for i, layer in enumerate(self.features):
            if i > wanted[-1]:
                break
            x, bank = step(layer, x, bank, recompute and i > 0)
            after = getattr(self, f"attention_after{i}", None)
            x = x if after is None else after(x)
            if i == 0:
                bank = self.start(x)
            if i in wanted:
                maps.append(x)
        return maps

    def initialise_classifier(self, layer: nn.Module) -> None:
        """Initialise a classifier: normal with deviation 0.01, no bias."""
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)

    def pool(self, x: FeatureMap) -> torch.Tensor:
        """Return the last map pooled, `[n c]`; as it is where there is no pool."""
        if not self.global_pool:
            return x
        return x.mean((2, 3)) if self.global_pool == "avg" else x.amax((2, 3))

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `[n classes]` of `[n c]`, in training with dropout."""
        return self.classifier(x)


mobilenet_v2 = MobileNetV2
mobilenet_v2_cifar = partial(MobileNetV2, stem="cifar")
