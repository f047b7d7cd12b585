"""What attached attention costs on hosts of timm: writes benchmarks/results/attached.json.

    python benchmarks/attached.py                     # every row that the file does not have yet
    python benchmarks/attached.py --fresh             # every row
    python benchmarks/attached.py --rounds 6 --only "convnext_atto: inference, 1 at 224" --out /tmp/attached.json

A row is timed in turn (A B C, C B A); a ratio to the host without attention is the median of the rounds' own ratios,
with an interval that holds it with a probability of 0.95 or more. After each row the file is written, so that a run
that was stopped goes on where it was.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from excite.runtime import tune

TUNED = tune()

import timm  # noqa: E402 - after the threads are set
import torch  # noqa: E402
from record import ORDER_STATISTICS, RATIO, add_out, ratio_cell, show, table, write  # noqa: E402
from torch import nn  # noqa: E402

import excite  # noqa: E402
from excite.errors import UsageError  # noqa: E402
from excite.measure.bench.timing import interleave, median_interval, ratio  # noqa: E402

TABLE = "ratio to the host"
NETWORKS = ("resnet50", "regnetx_008", "convnext_atto")
CASES = {"training step, 16 at 112": (16, 112), "inference, 1 at 224": (1, 224), "inference, 16 at 112": (16, 112)}
VARIANTS = ("eca, attached", "eca, timm", "none, ours", "eca, ours")
COLUMNS = {"network and case": "", "host": "{:.1f} ms", **dict.fromkeys(VARIANTS, RATIO)}


def builders(network: str) -> dict[str, Callable[[], nn.Module]]:
    """Return label -> builder; the first divides the others. timm builds ECA into its ResNets, and so do we."""

    def attached() -> nn.Module:
        host = timm.create_model(network)
        excite.attach(host, "eca")
        return host

    made: dict[str, Callable[[], nn.Module]] = {"host": partial(timm.create_model, network), "eca, attached": attached}
    if network == "resnet50":
        made["eca, timm"] = partial(timm.create_model, network, block_args={"attn_layer": "eca"})
        made["none, ours"] = partial(excite.create_model, network)
        made["eca, ours"] = partial(excite.create_model, f"eca_{network}")
    return made


def call(network: nn.Module, x: torch.Tensor, training: bool) -> Callable[[], None]:
    """Return one training step (forward, loss, backward) or one pass without gradients, NHWC."""
    network = network.to(memory_format=torch.channels_last).train(training)
    y = torch.randint(0, 1000, (x.shape[0],))

    def step() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()

    def infer() -> None:
        with torch.inference_mode():
            network(x)

    return step if training else infer


def row(network: str, case: str, rounds: int) -> list[Any]:
    """Time a network's variants in one case."""
    batch, side = CASES[case]
    x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    calls = {}
    for label, build in builders(network).items():
        torch.manual_seed(0)
        calls[label] = call(build(), x, case.startswith("training"))
    timings = interleave(calls, rounds, warmup=3, min_time=0.2)
    host = timings["host"]
    cells = [ratio_cell(ratio(timings[v], host)) if v in timings else None for v in VARIANTS]
    return [f"{network}: {case}", round(1e3 * host.median, 3), *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--fresh", action="store_true", help="time rows again that the file has")
    parser.add_argument("--only", help="a row, or the beginning of its name")
    add_out(parser, "attached")
    args = parser.parse_args()
    if args.rounds < 6:
        parser.error(f"--rounds {args.rounds}: an interval of 95 % needs at least six")
    if args.threads:
        torch.set_num_threads(args.threads)
    names = [f"{network}: {case}" for network in NETWORKS for case in CASES]
    wanted = [name for name in names if name.startswith(args.only or "")]
    if not wanted:
        raise UsageError(f"--only {args.only!r} begins none of the rows: {', '.join(names)}")
    rows: dict[str, list[Any]] = {}
    if args.out.is_file() and not args.fresh:
        there = json.loads(args.out.read_text(encoding="utf-8"))["tables"][TABLE]["rows"]
        rows = {cells[0]: cells for cells in there}
    coverage = median_interval(range(args.rounds))[2]
    interval = f"{ORDER_STATISTICS}: {coverage:.3f} with {args.rounds} rounds of at least 0.2 s"
    began = time.monotonic()
    for name in wanted:
        if name in rows:
            continue
        load = os.getloadavg()[0]
        rows[name] = row(*name.split(": "), args.rounds)
        ordered = [rows[n] for n in names if n in rows]
        notes = [f"NHWC; {TUNED or 'untuned'}; load before the last row {load:.1f}"]
        write(args.out, {TABLE: table(COLUMNS, ordered)}, interval=interval, notes=notes)
        print(f"{time.monotonic() - began:.0f} s: {name}", file=sys.stderr, flush=True)
    show({TABLE: table(COLUMNS, [rows[n] for n in names if n in rows])})


if __name__ == "__main__":
    main()
