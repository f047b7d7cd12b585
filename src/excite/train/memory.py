"""Whether a training step fits into memory, estimated before the first one."""

import torch
from torch import nn

from excite.engine.config import RunConfig
from excite.errors import UsageError
from excite.inspect.trace import empty_tensors
from excite.runtime import free_memory

SHARE = 0.9  # of the free memory that a suggestion fills
PROBE = 2  # images: batch norms need two


def saved_bytes(model: nn.Module, size: int, channels: int = 3) -> int | None:
    """Return the bytes that a training step keeps of one image for its backward pass, in float32.

    The forward pass runs on meta tensors, so nothing is computed. None where the network needs real numbers.
    """
    empty = empty_tensors(model)
    own = {t.untyped_storage()._cdata for t in empty.values()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no other storage gets the same address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            images = torch.empty(PROBE, channels, size, size, device="meta")
            torch.func.functional_call(model, empty, (images,), tie_weights=False)
    except Exception:  # whatever somebody's network raises where there are no numbers
        return None
    finally:
        model.train(training)
    return sum(storage.nbytes() for storage in kept.values()) // PROBE


def step_bytes(model: nn.Module, config: RunConfig, per_image: int) -> tuple[int, float]:
    """Return (bytes whatever the batch: weights, gradients, the optimizer's and averaged ones; bytes per image)."""
    weights = sum(t.nbytes for t in model.parameters())
    learned = sum(t.nbytes for t in model.parameters() if t.requires_grad)
    states = 1 if config.optimizer == "sgd" else 2
    half = 1.0 if config.precision == "fp32" else 0.5
    return weights + learned * (1 + states) + (weights if config.ema else 0), per_image * half


def check_memory(
    model: nn.Module, config: RunConfig, size: int, device: str, channels: int = 3, images: int | None = None
) -> str | None:
    """Return what a step needs, in words; None where that cannot be told.

    images: those there are, where they may be fewer than a batch. Raises UsageError where a batch cannot fit into the
    memory that is free, with the batch size that would.
    """
    per_image = saved_bytes(model, size, channels)
    free = free_memory(device)
    if per_image is None or free is None:
        return None
    fixed, each = step_bytes(model, config, per_image)
    needed = fixed + each * (
        config.own_batch if images is None else min(-(-images // config.processes), config.own_batch)
    )
    if needed > free:
        most = int((SHARE * free - fixed) / max(each, 1))
        where = "the GPU" if device == "cuda" else "this machine"
        remedy = f"--batch-size {most * config.processes} would" if most >= 2 else "a smaller --size may"
        if most >= 2 and most < config.own_batch:
            remedy += f" (with --accumulate {-(-config.own_batch // most)} for steps as large as asked for)"
        raise UsageError(
            f"--batch-size {config.batch_size} at {size} x {size} pixels needs about {_gib(needed)} of memory, {where} "
            f"has {_gib(free)} free; {remedy} fit"
        )
    return f"about {_gib(needed)} of {_gib(free)} free memory"


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
