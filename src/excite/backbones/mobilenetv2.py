"""MobileNetV2 (Sandler et al., CVPR 2018), keys as torchvision's."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from excite.backbones.placement import AttentionSpec, Site
from excite.errors import UsageError, unknown
from excite.methods.senet import round_channels
from excite.ops import norm_act, residual_tail
from excite.types import FeatureMap

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


class InvertedResidual(nn.Module):
    """expand 1x1 - depth-wise 3x3 - project 1x1 - tail `attention(bn(z)) (+ x)`, without an activation at the end."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, attention: nn.Module | None
    ) -> None:
        super().__init__()
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

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        for i in range(len(self.conv) - 1):
            x = self.conv[i](x)
        return x

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the block's output."""
        return residual_tail(self.branch(x), self.last_norm, self.attention, x if self.has_shortcut else None, None)


def _with_published_kernels(attention: AttentionSpec, channels: list[int]) -> AttentionSpec:
    # ECA-Net's MobileNetV2 takes k = 1 below 96 output channels and k = 3 from there on.
    if attention.method != "eca" or "kernel_size" in attention.options:
        return attention
    sizes = tuple(1 if c < 96 else 3 for c in channels)
    return AttentionSpec("eca", {**attention.options, "kernel_size": sizes}, attention.placement)


def _widths(width_mult: float, channels: Sequence[int] | None) -> list[int]:
    if channels is None:
        inner = [round_channels(c * width_mult, 8) for c in (32, *(c for _, c, _, _ in STAGES))]
        return [*inner, round_channels(1280 * max(1.0, width_mult), 8)]
    if len(channels) != len(STAGES) + 2 or min(channels) < 1 or width_mult != 1.0:
        raise UsageError(
            f"mobilenet_v2: channels={list(channels)!r} needs {len(STAGES) + 2} positive integers and no width_mult"
        )
    return list(channels)


class MobileNetV2(nn.Module):
    """MobileNetV2 with one place for attention per inverted residual (on its output channels).

    width_mult: factor on all channels; stem: "imagenet" (output stride 32) or "cifar" (8, for 32x32 images);
    dropout: before the classifier (ECA-Net trains with 0.25). Placements count seven stages of equal channels.
    channels: of the first layer, the seven stages and the last layer, instead of a width_mult (authors round
    differently).
    Raises UsageError for methods that replace a 3x3 convolution: here it is depth-wise.
    """

    inverted_residual: type[InvertedResidual] = InvertedResidual

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width_mult: float = 1.0,
        channels: Sequence[int] | None = None,
        dropout: float = 0.2,
        stem: str = "imagenet",
        attention: AttentionSpec | None = None,
    ) -> None:
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise unknown("stem", stem, ("imagenet", "cifar"))
        spec = attention or AttentionSpec()
        if spec.card.role == "conv":
            raise UsageError(f"method {spec.method!r} replaces a dense 3x3 convolution; MobileNetV2 has none")
        entry, *widths, last = _widths(width_mult, channels)
        self.spec = _with_published_kernels(spec, widths)
        cifar = stem == "cifar"
        features: list[nn.Module] = [ConvNormAct(in_channels, entry, 3, 1 if cifar else 2)]
        taps = []
        for stage, (expansion, _, blocks, stride) in enumerate(STAGES):
            if cifar and stage == 1:
                stride = 1
            if stride == 2 and stage > 1:
                taps.append(len(features) - 1)
            for i in range(blocks):
                made = self.spec.residual(Site(widths[stage], stage, i, blocks), len(STAGES))
                step = stride if i == 0 else 1
                features.append(self.inverted_residual(entry, widths[stage], step, expansion, made))
                entry = widths[stage]
            after = self.spec.between(entry, stage, len(STAGES))
            if after is not None:
                self.add_module(f"attention_after{len(features) - 1}", after)
        features.append(ConvNormAct(entry, last, 1))
        self.features = nn.Sequential(*features)
        self.taps = (*taps, len(features) - 1)
        self.feature_channels = (widths[1], widths[2], widths[4], last)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        self._initialise()

    def _initialise(self) -> None:
        from excite.backbones.blocks import initialise

        initialise(self)
        nn.init.normal_(self.classifier[1].weight, 0, 0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.classifier[1].bias)  # type: ignore[arg-type]

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the last map of every resolution from a quarter on (strides 4, 8, 16, 32 with the ImageNet stem)."""
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            after = getattr(self, f"attention_after{i}", None)
            if after is not None:
                x = after(x)
            if i in self.taps:
                maps.append(x)
        return maps

    def forward_head(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of the last map."""
        return self.classifier(x.mean((2, 3)))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the logits `[n classes]` of images `[n c h w]`."""
        return self.forward_head(self.forward_features(x)[-1])


def mobilenet_v2(*, attention: AttentionSpec | None = None, **kwargs: Any) -> MobileNetV2:
    """Build MobileNetV2."""
    return MobileNetV2(attention=attention, **kwargs)


def mobilenet_v2_cifar(*, attention: AttentionSpec | None = None, stem: str = "cifar", **kwargs: Any) -> MobileNetV2:
    """Build MobileNetV2 with output stride 8, for 32x32 images."""
    return MobileNetV2(attention=attention, stem=stem, **kwargs)
