"""Residual networks as the zoo has none: odd norms, shared and tied parts, outputs of many kinds."""

from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

Parts = namedtuple("Parts", "logits maps")


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def squeeze_excite(x: Tensor) -> Tensor:
    """SE without weights, in a function."""
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WrittenNorm(nn.Module):
    """The same written out, as in ConvNeXt's code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        off = x - x.mean(1, keepdim=True)
        x = off / (off.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class EvoNorm(nn.Module):
    """EvoNorm-S0: norm and activation in one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.scale, self.bias = (
            nn.Parameter(torch.rand(1, channels, 1, 1)),
            nn.Parameter(torch.zeros(1, channels, 1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        spread = x.reshape(n, 4, c // 4, h, w).var((2, 3, 4), keepdim=True).expand(n, 4, c // 4, h, w).reshape(x.shape)
        return x * torch.sigmoid(self.v * x) / (spread + 1e-5).sqrt() * self.scale + self.bias


class PickyNorm(nn.BatchNorm2d):
    """A norm with arguments of its own, which asks for its very class."""

    def __init__(self, channels: int, *, reason: str) -> None:
        super().__init__(channels)
        self.reason = reason

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self, PickyNorm)
        assert self.reason
        return super().forward(x)


class StandardConv(nn.Conv2d):
    """A convolution with standardised weights, for networks without norms."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, padding=self.padding)


class Host(nn.Module):
    """A stem, two blocks `relu(x + last(norm(conv(x))))`, a head. Subclasses change a part of it."""

    width = 8
    conv: Any = partial(nn.Conv2d, kernel_size=3, padding=1)
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d

    def __init__(self) -> None:
        super().__init__()
        kind, w = type(self), self.width
        self.stem, self.head = nn.Conv2d(3, w, 3, padding=1), nn.Linear(w, 4)
        self.convs = nn.ModuleList(kind.conv(w, w) for _ in range(4))
        self.norms = nn.ModuleList(kind.norm(w) for _ in range(4))

    def branch(self, x: Tensor, i: int) -> Tensor:
        x = F.relu(self.norms[i](self.convs[i](x)))
        return self.norms[i + 1](self.convs[i + 1](x))

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        x = self.stem(x)
        for i in (0, 2):
            x = F.relu(x + self.branch(x, i))
            yield x

    def forward(self, x: Tensor) -> Any:
        *_, last = self.maps(x)
        return self.head(last.mean((2, 3)))


class GroupNormed(Host):
    norm = partial(nn.GroupNorm, 4)


class LayerNormed(Host):
    norm = LayerNorm2d


class WrittenNormed(Host):
    norm = WrittenNorm


class EvoNormed(Host):
    norm = EvoNorm


class Picky(Host):
    norm = partial(PickyNorm, reason="because")


class NormFree(Host):
    conv = partial(StandardConv, kernel_size=3, padding=1)
    norm = nn.Identity  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.Identity() for _ in range(4))
        self.gains = nn.Parameter(torch.full((4,), 0.5))

    def branch(self, x: Tensor, i: int) -> Tensor:
        return self.gains[i] * self.convs[i + 1](F.relu(self.convs[i](x)))


class LambdaExcited(Host):
    def __init__(self) -> None:
        super().__init__()
        self.excite, self.join = Lambda(squeeze_excite), Lambda(add)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        x = self.stem(x)
        for i in (0, 2):
            x = F.relu(self.join(x, self.excite(self.branch(x, i))))
            yield x


class Tied(Host):
    """Convolutions that share one weight, norms that share one bias."""

    def __init__(self) -> None:
        super().__init__()
        for conv, norm in zip(list(self.convs)[1:], list(self.norms)[1:], strict=True):
            conv.weight, norm.bias = self.convs[0].weight, self.norms[0].bias


class Aliased(Host):
    """The same norm under two names, run once."""

    def __init__(self) -> None:
        super().__init__()
        self.also = self.norms[1]


class Structured(Host):
    """A namedtuple of a tensor and a dict of lists."""

    def forward(self, x: Tensor) -> Any:
        maps = list(self.maps(x))
        return Parts(self.head(maps[-1].mean((2, 3))), {"all": maps, "spectrum": [torch.fft.rfft2(maps[-1])]})


class Checkpointed(Host):
    reentrant = False

    def branch(self, x: Tensor, i: int) -> Tensor:
        return checkpoint(super().branch, x, i, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


class Segments(nn.Module):
    """Blocks in a sequence that is checkpointed in segments."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.blocks = nn.Sequential(*(Block(8) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint_sequential(self.blocks, 2, self.stem(x), use_reentrant=False)
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.conv(x)), inplace=True)


class Fixed(nn.Module):
    """Filters that are buffers: no parameter at all; the norms have none either."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stem", torch.randn(8, 3, 3, 3) / 5)
        self.convs = nn.ModuleList(Filter(8) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8, affine=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.get_buffer("stem"), padding=1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(x + norm(conv(x)))
        return x.mean((2, 3))


class Filter(nn.Conv2d):
    """A convolution whose weight is a buffer."""

    def __init__(self, c: int) -> None:
        super().__init__(c, c, 3, padding=1, bias=False)
        weight = self.weight.detach()
        del self.weight
        self.register_buffer("weight", weight)


class Named(Host):
    """A host that uses the name of the carrier's child for itself, and answers for attributes that it lacks."""

    def __init__(self) -> None:
        super().__init__()
        for norm in self.norms:
            norm.attention = nn.Identity()  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name == "classes":
            return 4
        return super().__getattr__(name)


class Called(Host):
    """`__call__` is the host's own."""

    def __call__(self, x: Tensor, *args: Any) -> Any:
        return super().__call__(x * 2, *args)


class Dictionary(nn.Module):
    """Parts in a ModuleDict, called by name; arguments by keyword only."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"stem": nn.Conv2d(3, 8, 3, padding=1), "conv": nn.Conv2d(8, 8, 3, padding=1)})
        self.parts["norm"] = nn.BatchNorm2d(8)
        self.parts["two"] = Block(8)

    def forward(self, image: Tensor, *, scale: float = 1.0) -> Tensor:
        x = self.parts["stem"](input=image)
        x = F.relu(self.parts["norm"](input=self.parts["conv"](input=x)) + x)
        return self.parts["two"](x).mean((2, 3)) * scale


class Spectral(Host):
    """Old-style spectral norm: hooks and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        for conv in self.convs:
            nn.utils.spectral_norm(conv)


class Hooked(Host):
    """Hooks of the host on the norms that carry attention."""

    def __init__(self) -> None:
        super().__init__()
        for norm in self.norms:
            norm.register_forward_pre_hook(half)
            norm.register_forward_hook(more)


def half(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x / 2 for x in args)


def more(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
    return y + 1


class Precise(Host):
    """Half of it in float64."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.double())

    def __init__(self) -> None:
        super().__init__()
        self.double()


HOSTS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        GroupNormed, LayerNormed, WrittenNormed, EvoNormed, Picky, NormFree, LambdaExcited, Tied, Aliased, Structured,
        Checkpointed, Reentrant, Segments, Fixed, Named, Called, Dictionary, Spectral, Hooked, Precise,
    )
}  # fmt: skip
