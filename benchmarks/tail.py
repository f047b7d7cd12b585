"""The end of a block alone, forward and backward, by the size of its map: writes benchmarks/results/tail.json.

    python benchmarks/tail.py

Modules one after another, the fused tail in PyTorch, and the fused tail in C, timed in turn.
"""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

from excite.runtime import tune

tune()

import torch  # noqa: E402 - after the allocator is set
from record import ORDER_STATISTICS, add_out, ratio_cell, show, table, write  # noqa: E402
from torch import nn  # noqa: E402

from excite import ops  # noqa: E402
from excite.measure.bench import interleave, ratio  # noqa: E402
from excite.ops.tail import torch as plain  # noqa: E402
from excite.ops.tail.api import fused_tail  # noqa: E402
from excite.ops.tail.kernels import Kernels  # noqa: E402
from excite.ops.tail.plan import native  # noqa: E402
from excite.registry import create_attention  # noqa: E402

SHAPES = [(4, 1024, 7, 7), (16, 24, 28, 28), (16, 2048, 4, 4), (4, 256, 28, 28), (16, 512, 14, 14), (16, 256, 28, 28)]
LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
FORMS: dict[str, Any] = {"modules": None, "PyTorch": Kernels(plain), "C": native()}


def step(form: str, module: Any, attention: Any, maps: list[torch.Tensor], shortcut: bool) -> Callable[[], None]:
    """Return one forward and backward pass of the tail."""
    z, r, grad = maps
    z, r = z.clone().requires_grad_(), r.clone().requires_grad_() if shortcut else None
    kernels, act = FORMS[form], nn.ReLU(inplace=True)
    squeeze, gate = (None, None) if attention is None else (attention.squeeze, attention.gate)

    def run() -> None:
        z.grad = None
        if kernels is None:
            with ops.use("reference"):
                out = ops.residual_tail(z, module, attention, r, act)
        else:
            out, _ = fused_tail(z, module, squeeze, gate, r, act, kernels)
        out.backward(grad)

    return run


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_out(parser, "tail")
    args = parser.parse_args()
    if FORMS["C"] is None:
        raise SystemExit(f"no C kernels here: {ops.kernels_on('cpu')}")
    rows = []
    for shape, (layout, fmt) in itertools.product(SHAPES, LAYOUTS.items()):
        maps = [torch.randn(shape).contiguous(memory_format=fmt) for _ in range(3)]
        size = f"{'x'.join(map(str, shape))}, {maps[0].numel() * 4 / 2**20:.1f} MiB"
        for tail in ("norm, rectifier", "norm, sum, rectifier", "norm, ECA, sum, rectifier"):
            norm = nn.BatchNorm2d(shape[1])
            attention = create_attention("eca", shape[1]) if "ECA" in tail else None
            calls = {form: step(form, norm, attention, maps, "sum" in tail) for form in FORMS}
            found = interleave(calls, rounds=15, min_time=0.01)
            base = found["modules"]
            ratios = [ratio_cell(ratio(found[form], base)) for form in ("PyTorch", "C")]
            rows.append([f"{size}; {layout}; {tail}", round(1e3 * base.median, 4), *ratios])
    form = "{:.2f} [{:.2f}, {:.2f}]"
    columns = {"map, layout, tail": "", "modules": "{:.2f} ms", "fused, PyTorch": form, "fused, C": form}
    tables = {"forward and backward": table(columns, rows)}
    show(tables)
    notes = ["float32; ratios to the modules one after another"]
    write(args.out, tables, interval=ORDER_STATISTICS, notes=notes)


if __name__ == "__main__":
    main()
