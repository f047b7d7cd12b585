"""Full precision where half precision would overflow: sums, squares, products of descriptors."""

from collections.abc import Callable
from typing import Any

import torch

# Any: what is computed, and of what, is the caller's.


def widen(x: torch.Tensor) -> torch.Tensor:
    """Return `x` in float32 if it is half or bfloat16, else as it is (float64 stays float64)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def wide_type(x: torch.Tensor) -> torch.dtype:
    """Return the type that `widen` gives."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def without_autocast(compute: Callable[..., Any], x: torch.Tensor, *more: Any) -> Any:
    """Return `compute(x, *more)` with autocast off on the device of `x`.

    Autocast would take a float32 descriptor back to half precision at the first matrix product, where a sum over
    hundreds of channels of a large map exceeds 65504. Without autocast nothing changes (and exported graphs hold no
    autocast regions).
    """
    device = x.device.type
    # The meta device has no autocast; asking for its state is an error.
    if device != "meta" and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return compute(x, *more)
    return compute(x, *more)
