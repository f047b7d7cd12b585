"""Squeezes: `[n c *space] -> descriptor [n c k]`, or directional `-> strips`, one `[n c s]` per space axis."""

import math
from collections.abc import Callable

import torch
from torch import nn

from excite.common.checks import check_batch
from excite.errors import UsageError
from excite.ops import known
from excite.ops.precision import widen
from excite.spectral import Spectral
from excite.types import Descriptor, FeatureMap, Strips

__all__ = ["L1", "L2", "POOLS", "GlobalGather", "Mean", "MeanStd", "Pools", "Spectral", "StripMeans"]


@known("mean")
class Mean(nn.Module):
    """Mean over all positions, `[n c *space] -> [n c 1]` (Hu et al., Squeeze-and-Excitation Networks, eq. 2)."""

    needs_second_moment = False

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the mean of every channel."""
        return x.mean(dim=tuple(range(2, x.dim()))).unsqueeze(-1)

    def from_statistics(self, mean: torch.Tensor, variance: torch.Tensor | None, count: int) -> Descriptor:
        """Return the same descriptor from the mean `[n c]` of every channel."""
        return mean.unsqueeze(-1)


@known("mean and deviation")
class MeanStd(nn.Module):
    """Mean and standard deviation over all positions, `[n c *space] -> [n c 2]` (SRM, section 3.1: style pooling).

    The variance is unbiased (a single position has variance 0) and `eps` is added before the root. Half precision
    is widened to float32, since squares of large activations overflow.
    """

    needs_second_moment = True

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return mean and standard deviation of every channel."""
        flat = widen(x).flatten(2)
        count = flat.shape[2]
        variance, mean = torch.var_mean(flat, dim=2, correction=0)
        # sym_max keeps a size that is unknown at export time unknown.
        unbiased: torch.Tensor = variance * count / torch.sym_max(count - 1, 1)  # type: ignore[assignment]  # a SymInt
        return torch.stack((mean, (unbiased + self.eps).sqrt()), dim=-1)

    def from_statistics(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> Descriptor:
        """Return the same descriptor from mean and biased variance `[n c]` over `count` positions."""
        made = torch.stack((mean, variance * (count / max(count - 1, 1)) + self.eps), dim=-1)
        # In place: the root that autograd keeps is the descriptor, which the gate keeps anyway.
        made.select(-1, 1).sqrt_()
        return made

    def extra_repr(self) -> str:
        """Show eps."""
        return f"eps={self.eps}"


class L2(nn.Module):
    """`sqrt(sum x^2 + eps)` over all positions, `[n c *space] -> [n c 1]` (Gated Channel Transformation, section 3.1).

    Half precision is widened to float32.
    """

    needs_second_moment = True

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the L2 norm of every channel."""
        squares = widen(x).flatten(2).square().sum(dim=2)
        return (squares + self.eps).sqrt().unsqueeze(-1)

    def from_statistics(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> Descriptor:
        """Return the same descriptor from mean and biased variance `[n c]` over `count` positions."""
        return (torch.addcmul(variance, mean, mean) * count + self.eps).sqrt().unsqueeze(-1)

    def extra_repr(self) -> str:
        """Show eps."""
        return f"eps={self.eps}"


class L1(nn.Module):
    """`sum |x|` over all positions, `[n c *space] -> [n c 1]` (Gated Channel Transformation, the L1 variant).

    signed: `sum x` instead, which is the same for positive maps.
    """

    def __init__(self, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the L1 norm of every channel."""
        flat = widen(x).flatten(2)
        return (flat if self.signed else flat.abs()).sum(dim=2).unsqueeze(-1)

    def extra_repr(self) -> str:
        """Show whether signs count."""
        return f"signed={self.signed}"


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


class StripMeans(nn.Module):
    """Means along every axis, over all other axes, `[n c h w] -> ([n c h], [n c w])` (Coordinate Attention, eq. 4-5).

    Maps with one axis are their own strip; maps with three have three. Half precision is widened to float32.
    """

    def forward(self, x: FeatureMap) -> Strips:
        """Return one strip per space axis."""
        axes = range(2, x.dim())
        if len(axes) == 1:
            return (widen(x),)
        return tuple(widen(x.mean(dim=[other for other in axes if other != axis])) for axis in axes)


class GlobalGather(nn.Module):
    """`norm(sum_p w_c[p] x_c[p] + b_c)`, `[n c *size] -> [n c 1]` (Gather-Excite, GE-theta with a global extent).

    size: of the maps, one integer per space axis; other maps raise UsageError. bias: b.
    """

    def __init__(self, channels: int, size: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, 1, *size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(size))
            nn.init.uniform_(self.bias, -bound, bound)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return the normalised weighted sums."""
        if tuple(x.shape[2:]) != self.size:
            raise UsageError(
                f"ge: a learned global gather for maps of size {self.size} got {tuple(x.shape[2:])}; "
                "give the right size, or a finite extent, which takes any size"
            )
        check_batch("ge with a global extent", self, x)
        # The product stands in the dtype of the weights: sums of half-precision products overflow.
        sums = (x.to(self.weight.dtype) * self.weight[:, 0]).flatten(2).sum(dim=2)
        return self.norm(sums if self.bias is None else sums + self.bias).unsqueeze(-1)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"size={self.size}"
