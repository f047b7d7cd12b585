"""GCNet: global context."""

import torch
from torch import nn

from excite.methods.base import Method
from excite.methods.nd import check_choice, check_map, check_positive, over_space
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap


class ContextTransform(nn.Module):
    """`W2 relu(layer_norm(W1 s))`, `[n c] -> [n c]` (GCNet, figure 4d); zero: W2 and its bias start at 0."""

    def __init__(self, channels: int, hidden: int, zero: bool, eps: float) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.expand = nn.Linear(hidden, channels)
        if zero:
            nn.init.zeros_(self.expand.weight)
            nn.init.zeros_(self.expand.bias)

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Return the transformed context."""
        return self.expand(torch.relu(self.norm(self.reduce(s.to(self.reduce.weight.dtype)))))


class GlobalContext(nn.Module):
    """A softmax over positions pools one context vector, added to or multiplying every position (GCNet, eq. 5)."""

    def __init__(self, channels: int, hidden: int, pool: str, fusion: str, zero: bool, eps: float) -> None:
        super().__init__()
        self.channels = channels
        self.mask = nn.Conv1d(channels, 1, 1) if pool == "attention" else None
        self.scale = ContextTransform(channels, hidden, zero, eps) if fusion in ("multiply", "both") else None
        self.shift = ContextTransform(channels, hidden, zero, eps) if fusion in ("add", "both") else None

    def _context(self, x: FeatureMap) -> torch.Tensor:
        flat = widen(x).flatten(2)
        if self.mask is None:
            return flat.mean(dim=2)
        logits = self.mask(flat.to(self.mask.weight.dtype))
        return torch.matmul(flat, torch.softmax(logits.to(flat.dtype), dim=2).transpose(1, 2)).squeeze(2)

    def _terms(self, x: FeatureMap) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        context = self._context(x)
        scale = None if self.scale is None else torch.sigmoid(self.scale(context)).to(x.dtype)
        shift = None if self.shift is None else self.shift(context).to(x.dtype)
        return scale, shift

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map with its context."""
        check_map("gc", x, self.channels)
        scale, shift = without_autocast(self._terms, x)
        y = x if scale is None else x * over_space(scale, x)
        return y if shift is None else y + over_space(shift, x)


def gc(
    channels: int,
    *,
    reduction: int = 16,
    pool: str = "attention",
    fusion: str = "add",
    zero_init: bool = True,
    eps: float = 1e-5,
) -> nn.Module:
    """Build GCNet's block over `channels` channels.

    reduction: of the transform; pool: "attention" (softmax over positions) or "average"; fusion: "add", "multiply"
    (by a sigmoid) or "both"; zero_init: the last layer starts at 0, so that "add" starts as the identity; eps: of the
    layer norm. timm's default is fusion="multiply", reduction=8, zero_init=False, eps=1e-6.
    """
    check_positive("gc", reduction=reduction)
    check_choice("gc", "pool", pool, ("attention", "average"))
    check_choice("gc", "fusion", fusion, ("add", "multiply", "both"))
    return GlobalContext(channels, max(1, channels // reduction), pool, fusion, zero_init, eps)


GC = Method(
    build=gc,
    equation="s = sum_p softmax_p(v x) x_p,  y = x + W2 relu(layer_norm(W1 s))",
    paper="Cao, Xu, Lin, Wei, Hu: GCNet, ICCV workshops 2019, arXiv:1904.11492, eq. 5",
    identity_at_init=True,
)
