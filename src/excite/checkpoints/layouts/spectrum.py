"""Which frequencies a stored cosine basis `[c h w]` holds."""

import re

import torch

from excite.checkpoints.layouts.base import State
from excite.errors import ExciteError
from excite.methods.fcanet import TABLES
from excite.spectral import cosine_rows

BASIS = re.compile(r"layer(\d+)\.0\.att\.dct_layer\.weight")


def _bases(state: State) -> dict[int, torch.Tensor]:
    return {int(m[1]): state[k] for k in state if (m := BASIS.fullmatch(k))}


def sizes_of(state: State, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return the side of the transform per stage."""
    bases = _bases(state)
    if any(b.shape[1] != b.shape[2] for b in bases.values()):
        raise ExciteError("the FcaNet file has a transform that is not square; such networks are not built here")
    return tuple(bases[s + 1].shape[1] if s + 1 in bases else default[s] for s in range(len(default)))


def frequencies_of(state: State, default: str) -> str:
    """Return the selection, such as "top16". Raises ExciteError where the basis fits none of FcaNet's tables."""
    bases = _bases(state)
    if not bases:
        return default
    basis = bases[max(bases)].double()
    pairs = _pairs(basis)
    wanted = " ".join(f"{u}{v}" for u, v in pairs)
    for kind, table in TABLES.items():
        if " ".join(table.split()[: len(pairs)]) == wanted:
            return f"{kind}{len(pairs)}"
    raise ExciteError(f"the FcaNet file uses frequencies that are none of its published selections: {wanted}")


def _pairs(basis: torch.Tensor) -> list[tuple[int, int]]:
    """Return the (u, v) of every group of equal channels, in a 7x7 space."""
    changed = (basis[1:] - basis[:-1]).abs().amax(dim=(1, 2)) > 1e-6
    starts = [0, *(torch.nonzero(changed).flatten() + 1).tolist()]
    size = basis.shape[1]
    rows = cosine_rows(torch.arange(size), size, torch.float64)
    pairs = []
    for start in starts:
        spectrum = (rows @ basis[start] @ rows.T).abs()
        u, v = divmod(int(spectrum.argmax()), size)
        pairs.append((u // (size // 7), v // (size // 7)))
    return pairs
