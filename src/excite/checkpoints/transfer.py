"""Copying tensors into a network, entry by entry, with an account."""

from collections.abc import Mapping

import torch
from torch import nn

from excite.checkpoints.report import TransferReport
from excite.errors import ExciteError

COUNTERS = "num_batches_tracked"


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its ones: a linear layer and a 1x1 convolution hold the same numbers."""
    return tuple(n for n in shape if n != 1)


def check_numbers(key: str, value: torch.Tensor, target: torch.Tensor, source: str) -> None:
    """Raise ExciteError where numbers would be cast to another kind without a word, or are not finite."""
    if value.is_meta and not target.is_meta:
        raise ExciteError(f"{source}: its entry {key!r} has a shape and no numbers (it is on the meta device)")
    kinds = [_kind(tensor) for tensor in (value, target)]
    if kinds[0] != kinds[1]:
        raise ExciteError(f"{source}: its entry {key!r} holds {kinds[0]} ({value.dtype}), the network's {kinds[1]}")
    if value.is_floating_point() and not value.is_meta and not _finite(value):
        raise ExciteError(
            f"{source}: its entry {key!r} holds numbers that are not finite (nan, inf), as after a training that "
            "diverged; take an earlier checkpoint"
        )


def _kind(tensor: torch.Tensor) -> str:
    if tensor.is_complex():
        return "complex numbers"
    return "real numbers" if tensor.is_floating_point() else "whole numbers"


def _finite(value: torch.Tensor) -> bool:
    # Types of 8 bits and less have no arithmetic of their own.
    return bool(torch.isfinite(value if value.element_size() > 1 else value.float()).all())


def transfer(
    model: nn.Module, state: Mapping[str, torch.Tensor], sources: Mapping[str, str], origin: str = "the state dict"
) -> TransferReport:
    """Copy `state[sources[key]]` into every entry `key` of the model that has a source of its shape.

    Entries whose shapes differ only by ones are reshaped. Nothing else is touched; shared entries are written once.
    origin: where the state came from, for errors. Raises ExciteError for numbers of another kind and for those that are
    not finite.
    """
    report = TransferReport()
    own = model.state_dict(keep_vars=True)
    used = set()
    with torch.no_grad():
        for key, target in own.items():
            source = sources.get(key)
            if source is None:
                report.fresh.append(key)
                continue
            used.add(source)
            value = state[source]
            here, there = tuple(target.shape), tuple(value.shape)
            if here != there and squeezed(here) != squeezed(there):
                report.mismatched[key] = (there, here)
                continue
            check_numbers(source, value, target, origin)
            target.copy_(value.reshape(here))
            report.loaded[key] = source
            report.elements += value.numel()
    for key, source in sources.items():
        if key not in own and source not in used:
            report.ignored[source] = "no such entry in the model"
    return report


def forgive_counters(report: TransferReport) -> None:
    """Files older than torch 0.4.1 have no batch counters; leaving them at zero changes nothing."""
    counters = [k for k in report.fresh if k.endswith(COUNTERS)]
    if counters:
        report.fresh = [k for k in report.fresh if not k.endswith(COUNTERS)]
        report.notes.append(f"the file has no batch counters ({COUNTERS}); {len(counters)} of them stay at zero")
