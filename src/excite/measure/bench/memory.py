"""Peak memory of one call."""

from collections.abc import Callable

import torch
from torch import nn

from excite.inspect.trace import Trace, live_bytes


def peak_memory(call: Callable[[], object], network: nn.Module, device: str) -> int:
    """Return the most bytes of tensors alive during one call, weights included.

    CUDA: what the allocator held. CPU: every tensor's storage is followed from its birth to its end (torch's own work
    space inside an operation is not seen).
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(network)}
    trace = Trace()
    with live_bytes(trace, known=set(held)):
        call()
    return trace.peak_bytes + sum(held.values())


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
