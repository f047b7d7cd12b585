"""The end of a block alone, beside a copy of its map: how many reads and writes of the map it is, and its time."""

from collections.abc import Callable, Sequence

import torch

from excite import ops
from excite.registry import create_attention

# Reads and writes of the map, forward and backward, by what is between the norm and the addition and by mode.
COUNTED = {
    ("none", "reference"): (9, 8),
    ("none", "fused"): (5, 7),
    ("eca", "reference"): (12, 18),
    ("eca", "fused"): (5, 7),
}


def tail_calls(shape: Sequence[int], layout: torch.memory_format, device: str) -> dict[str, Callable[[], object]]:
    """Return "copy", and "METHOD MODE forward" and "METHOD MODE both" for every form of the tail of a map."""
    maps = [torch.randn(tuple(shape), device=device).contiguous(memory_format=layout) for _ in range(3)]
    target, act = torch.empty_like(maps[0]), torch.nn.ReLU(inplace=True)
    norm, eca = torch.nn.BatchNorm2d(shape[1]).to(device), create_attention("eca", shape[1]).to(device)

    def tail(method: str, mode: str, both: bool) -> None:
        z, r = (m.detach().requires_grad_() for m in maps[:2])
        with ops.use(mode):
            out = ops.residual_tail(z, norm, None if method == "none" else eca, r, act)
        if both:
            out.backward(maps[2])

    calls: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(maps[0])}
    for method, mode in COUNTED:
        for both, word in ((False, "forward"), (True, "both")):
            calls[f"{method} {mode} {word}"] = lambda m=method, o=mode, b=both: tail(m, o, b)  # type: ignore[misc]
    return calls
