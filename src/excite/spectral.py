"""Spectral pooling: one coefficient of the discrete cosine transform per channel."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from excite.errors import UsageError
from excite.ops.precision import widen
from excite.types import Descriptor, FeatureMap

# Any: values of two kinds that are only shown.


def cosine_rows(frequencies: torch.Tensor, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return rows u `[k]` of the orthonormal DCT-II of `size` points, `[k size]`.

    The angle is reduced in integers before the cosine is taken, so float32 loses nothing at high frequencies.
    """
    u = frequencies
    position = 2 * torch.arange(size, device=u.device) + 1
    # cos(pi u (i + 1/2) / size) has the period 4 size in u (2 i + 1).
    angle = (u[:, None] * position % (4 * size)).to(dtype) * (math.pi / 2) / size
    norm = torch.where(u == 0, torch.ones_like(angle[:, 0]), math.sqrt(2.0)) / size**0.5
    return torch.cos(angle) * norm[:, None]


def carry_over(frequencies: torch.Tensor, size: int, fixed: bool) -> torch.Tensor:
    """Return frequencies `[k]` of a 7-point transform as those of a transform of `size` points.

    fixed: as the original does, `u * (size // 7)`; else `u * size / 7` rounded, which wastes no band at sizes between
    multiples of 7 and still tells frequencies apart below 7 points. Both agree on multiples of 7.
    """
    if fixed and size >= 7:
        return frequencies * (size // 7)
    return (2 * frequencies * size + 7) // 14


class Spectral(nn.Module):
    """`sum_hw x_c[h w] cos_c[h] cos_c[w]`, `[n c h w] -> [n c 1]` (Qin et al., FcaNet, section 3).

    pairs: (u, v) along h and w in a 7x7 transform; the channels are cut into as many equal groups as there are pairs.
    size: side of the transform (or (h, w)); maps of another size are brought to it by adaptive average pooling, as in
    the original. None: the transform has the size of the map, whatever it is. The basis is a constant, not part of
    the state dict, and is built in float64.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    basis: torch.Tensor | None

    def __init__(self, pairs: Sequence[tuple[int, int]], size: tuple[int, int] | None) -> None:
        super().__init__()
        self.pairs, self.size = tuple(pairs), size
        self.register_buffer("rows", torch.tensor([u for u, _ in pairs]), persistent=False)
        self.register_buffer("columns", torch.tensor([v for _, v in pairs]), persistent=False)
        fixed = None if size is None else self._make_basis(*size, torch.float64).to(torch.get_default_dtype())
        self.register_buffer("basis", fixed, persistent=False)

    def _make_basis(self, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        fixed = self.size is not None
        rows = cosine_rows(carry_over(self.rows, height, fixed), height, dtype)
        columns = cosine_rows(carry_over(self.columns, width, fixed), width, dtype)
        return (rows[:, :, None] * columns[:, None, :]).flatten(1)

    def _basis_for(self, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        return self._make_basis(height, width, dtype) if self.basis is None else self.basis.to(dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "Spectral":
        # Moves and casts rebuild the constants: float32 -> float64 keeps full precision, a meta device loses nothing.
        super()._apply(fn, recurse)
        if self.rows.device.type != "meta":
            device = self.rows.device
            self.rows = torch.tensor([u for u, _ in self.pairs], device=device)
            self.columns = torch.tensor([v for _, v in self.pairs], device=device)
            if self.basis is not None and self.size is not None:
                exact = torch.float64 if device.type != "mps" else torch.float32
                self.basis = self._make_basis(*self.size, exact).to(self.basis.dtype)
        return self

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return one coefficient per channel. Raises UsageError for maps that are not `[n c h w]`."""
        if x.dim() != 4:
            raise UsageError(
                f"fca works on maps [n c h w], got one of shape {tuple(x.shape)}: its frequencies are pairs, found on "
                "images; for other maps use se or gct"
            )
        x = widen(x)
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            x = F.adaptive_avg_pool2d(x, self.size)
        basis = self._basis_for(x.shape[2], x.shape[3], x.dtype)
        k = len(self.pairs)
        groups = x.reshape(x.shape[0], k, x.shape[1] // k, -1)
        return torch.matmul(groups, basis.unsqueeze(-1)).reshape(x.shape[0], x.shape[1], 1)

    def projects(self, space: tuple[int, ...]) -> bool:
        """Tell whether maps of this size are weighed as they are, without resampling."""
        return len(space) == 2 and (self.size is None or space == self.size)

    def projection(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return the constants `[c h w]` with which a map `[n c h w]` of this shape is summed up."""
        basis = self._basis_for(shape[1], shape[2], dtype)
        return basis.repeat_interleave(shape[0] // len(self.pairs), dim=0).reshape(shape)

    def from_projection(self, sums: torch.Tensor) -> Descriptor:
        """Return the descriptor from the weighted sums `[n c]`."""
        return sums.unsqueeze(-1)

    def extra_repr(self) -> str:
        """Show the frequencies."""
        values: dict[str, Any] = {"frequencies": len(self.pairs), "size": self.size or "the map's"}
        return ", ".join(f"{k}={v}" for k, v in values.items())
