"""Several pools side by side."""

from collections.abc import Callable

import torch
from torch import nn

from excite.ops.precision import widen
from excite.types import Descriptor, FeatureMap


def _mean(flat: torch.Tensor) -> torch.Tensor:
    return flat.mean(dim=2)


def _max(flat: torch.Tensor) -> torch.Tensor:
    return flat.amax(dim=2)


def _lp(flat: torch.Tensor) -> torch.Tensor:
    return flat.square().sum(dim=2).sqrt()


def _lse(flat: torch.Tensor) -> torch.Tensor:
    return flat.logsumexp(dim=2)


POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"avg": _mean, "max": _max, "lp": _lp, "lse": _lse}


class Pools(nn.Module):
    """One number per channel and pool, `[n c *space] -> [n c k]` (CBAM's code: avg, max, lp = L2 norm, lse).

    average: the mean of all pools instead, `[n c 1]` (timm's light CBAM). Half precision is widened to float32.
    """

    def __init__(self, names: tuple[str, ...], average: bool = False) -> None:
        super().__init__()
        self.names, self.average = names, average

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the pooled numbers."""
        flat = widen(x).flatten(2)
        pooled = torch.stack([POOLS[name](flat) for name in self.names], dim=-1)
        return pooled.mean(dim=-1, keepdim=True) if self.average else pooled

    def extra_repr(self) -> str:
        """Show the pools."""
        return ", ".join(self.names) + (", averaged" if self.average else "")
