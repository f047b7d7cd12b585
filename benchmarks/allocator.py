"""What keeping freed memory saves in a training step on a CPU: time, page faults, time in the kernel.

python benchmarks/allocator.py --model resnet50 --batch 16 --side 112 --turns 3
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from excite.runtime import tune


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="resnet50")
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--side", type=int, default=112)
    made.add_argument("--turns", type=int, default=3, help="processes of each kind, in turn")
    made.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "allocator.json")
    made.add_argument("--probe", choices=("tuned", "untuned"), help=argparse.SUPPRESS)
    return made.parse_args()


def probe(args: argparse.Namespace) -> dict[str, float]:
    """Return the medians of seven steps in this process."""
    if args.probe == "tuned":
        tune()
    import torch
    from torch import nn

    from excite.models import create_model

    network = create_model(args.model).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    x = torch.randn(args.batch, 3, args.side, args.side).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (args.batch,))
    rows = []
    for _ in range(9):
        before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        network.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        after = resource.getrusage(resource.RUSAGE_SELF)
        rows.append((time.perf_counter() - begin, after.ru_minflt - before.ru_minflt, after.ru_stime - before.ru_stime))
    step, faults, kernel = (statistics.median(column) for column in zip(*rows[2:], strict=True))
    return {"step": step, "faults": faults, "kernel": kernel}


def main() -> None:
    """Time processes in turn, print and write."""
    args = arguments()
    if args.probe:
        print(json.dumps(probe(args)))
        return
    rows: list[list[Any]] = []
    given = ["--model", args.model, "--batch", str(args.batch), "--side", str(args.side)]
    for turn in range(args.turns):
        found = {}
        for kind in ("untuned", "tuned") if turn % 2 else ("tuned", "untuned"):
            command = [sys.executable, __file__, *given, "--probe", kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind] = json.loads(done.stdout.splitlines()[-1])
        gain = found["untuned"]["step"] / found["tuned"]["step"]
        for kind, last in (("untuned", None), ("tuned", round(gain, 4))):
            f = found[kind]
            rows.append(
                [str(turn + 1), kind, round(1e3 * f["step"], 2), f["faults"], round(1e3 * f["kernel"], 2), last]
            )
    from record import show, table, write  # not in a probe: it imports torch before the allocator is set

    columns = {"turn": "", "allocator": "", "step": "{:.0f} ms", "page faults": "{:.0f}", "in the kernel": "{:.0f} ms"}
    tables = {"step": table({**columns, "untuned / tuned": "{:.2f}"}, rows)}
    show(tables)
    setting = f"{args.model}, {args.batch} images at {args.side}², processes in turn; medians of seven steps"
    write(args.out, tables, notes=[setting])


if __name__ == "__main__":
    main()
