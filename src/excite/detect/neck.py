"""Necks: the feature pyramid (Lin et al., CVPR 2017, arXiv:1612.03144) with attention on its levels."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from excite.common.options import Option
from excite.detect.bodies import Body
from excite.errors import UsageError
from excite.registry import create_attention, get_method
from excite.types import FeatureMap


class PyramidBackbone(nn.Module):
    """Body, feature pyramid, attention on every pyramid map, then the coarser extra levels.

    maps: how many of the body's last maps are used; extra: "pool" (one level more by subsampling), "c5" or "p5" (P6 and
    P7 by strided convolutions over the body's last map or the pyramid's), "none".
    """

    def __init__(
        self,
        body: Body,
        *,
        channels: int = 256,
        maps: int = 4,
        extra: str = "pool",
        attention: str | None = None,
        attention_options: Mapping[str, Option] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.maps = min(maps, len(body.channels))
        used = list(body.channels[-self.maps :])
        self.fpn = FeaturePyramidNetwork(used, channels)
        self.attention = level_attention(attention, channels, self.maps, attention_options or {})
        self.extra = _extra_levels(extra, used[-1], channels)
        self.out_channels = channels
        self.levels = self.maps + {"pool": 1, "none": 0}.get(extra, 2)

    def forward(self, x: FeatureMap) -> OrderedDict[str, FeatureMap]:
        """Return the pyramid of images `[n c h w]`, finest level first."""
        maps = self.body(x)[-self.maps :]
        levels = self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        names, values = list(levels), list(levels.values())
        if self.attention is not None:
            values = [attend(v) for attend, v in zip(self.attention, values, strict=True)]
        if self.extra is not None:
            values, names = self.extra(values, maps, names)
        return OrderedDict(zip(names, values, strict=True))


def level_attention(
    method: str | None, channels: int, levels: int, options: Mapping[str, Option]
) -> nn.ModuleList | None:
    """Build one attention module per pyramid level, None where no method is asked for.

    Raises UsageError for methods that cannot stand alone on a map (they replace a convolution or need a whole network).
    """
    if method in (None, "none"):
        if options:
            raise UsageError(
                "neck_attention_options without neck_attention; name the method, e.g. neck_attention='eca'"
            )
        return None
    role = get_method(method).role
    if role not in ("residual", "between-stages"):
        raise UsageError(f"neck_attention {method!r} does not map [n c h w] to [n c h w] by itself (role {role!r})")
    return nn.ModuleList(create_attention(method, channels, **options) for _ in range(levels))


def _extra_levels(extra: str, last: int, channels: int) -> nn.Module | None:
    if extra == "none":
        return None
    if extra == "pool":
        return LastLevelMaxPool()
    if extra == "c5":
        return LastLevelP6P7(last, channels)
    if extra == "p5":
        return LastLevelP6P7(channels, channels)
    raise UsageError(f"extra levels {extra!r}; known: pool, c5, p5, none")
