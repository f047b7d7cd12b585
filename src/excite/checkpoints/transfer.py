"""Copying tensors into a network, entry by entry, with an account."""

from collections.abc import Mapping

import torch
from torch import nn

from excite.checkpoints.report import TransferReport

COUNTERS = "num_batches_tracked"


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its ones: a linear layer and a 1x1 convolution hold the same numbers."""
    return tuple(n for n in shape if n != 1)


def transfer(model: nn.Module, state: Mapping[str, torch.Tensor], sources: Mapping[str, str]) -> TransferReport:
    """Copy `state[sources[key]]` into every entry `key` of the model that has a source of its shape.

    Entries whose shapes differ only by ones are reshaped. Nothing else is touched; shared entries are written once.
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
