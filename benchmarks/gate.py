"""The gate of ECA as torch's Conv1d and as `excite.ops.correlate` does it, without C and with: by batch and channels.

python benchmarks/gate.py
"""

import argparse
import itertools
from typing import Any

import torch
from record import ORDER_STATISTICS, add_out, ratio_cell, show, table, write
from torch import nn

from excite.measure.bench import interleave, ratio
from excite.ops import correlate as module
from excite.ops.correlate import Correlate

FORMS = ("Conv1d", "sums", "C")


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_out(parser, "gate")
    args = parser.parse_args()
    rows = []
    kernels = module.native
    for batch, channels in itertools.product((1, 4, 16, 64), (64, 512, 2048)):
        conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)
        s, grad = torch.randn(batch, channels, requires_grad=True), torch.randn(batch, channels)

        def forward(form: str, conv: nn.Conv1d = conv, s: torch.Tensor = s) -> torch.Tensor:
            if form == "Conv1d":
                return conv(s[:, None])[:, 0]
            module.native = kernels if form == "C" else lambda: None
            return Correlate.apply(s, conv.weight)

        def both(form: str, forward: Any = forward, grad: torch.Tensor = grad) -> None:
            forward(form).backward(grad)

        calls = {form: lambda form=form, forward=forward: forward(form) for form in FORMS}
        calls |= {f"{form} both": lambda form=form, both=both: both(form) for form in FORMS}
        found = interleave(calls, rounds=15, min_time=0.005)
        module.native = kernels
        times: list[Any] = []
        for form in FORMS:
            one, two = (1e6 * found[k].median for k in (form, f"{form} both"))
            times += [round(one, 1), round(two - one, 1)]
        rows.append([f"{batch} x {channels}", *times, ratio_cell(ratio(found["C both"], found["Conv1d both"]))])
    columns = {f"{form} {way}": "{:.0f} us" for form in FORMS for way in ("forward", "backward")}
    columns = {"batch x channels": "", **columns, "C, ratio to Conv1d": "{:.2f} [{:.2f}, {:.2f}]"}
    tables = {"gate": table(columns, rows)}
    show(tables)
    write(args.out, tables, interval=ORDER_STATISTICS, notes=["The ratio is of forward and backward together"])


if __name__ == "__main__":
    main()
