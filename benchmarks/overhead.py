"""Where the time of the fused tails goes in a training step: in C, or between the calls.

python benchmarks/overhead.py --model eca_mobilenet_v2 --batch 16 --side 112
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from excite.runtime import tune

tune()

import torch  # noqa: E402 - after the allocator is set
from record import add_out, show, table, write  # noqa: E402

from excite import ops  # noqa: E402
from excite.models import create_model  # noqa: E402
from excite.ops.tail import api  # noqa: E402
from excite.ops.tail.autograd import AffineTail, Standardise  # noqa: E402
from excite.ops.tail.plan import native  # noqa: E402


class Stopwatch:
    """Adds up the time of calls by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            made = call(*args, **kwargs)
            self.seconds[name] += time.perf_counter() - begin
            self.calls[name] += 1
            return made

        return watched


def main() -> None:
    """Print and write milliseconds per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="eca_mobilenet_v2")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--steps", type=int, default=20)
    add_out(parser, "overhead")
    args = parser.parse_args()
    kernels = native()
    if kernels is None:
        raise SystemExit(f"no C kernels here: {ops.kernels_on('cpu')}")
    network = create_model(args.model).to(memory_format=torch.channels_last).train()
    x = torch.randn(args.batch, 3, args.side, args.side).contiguous(memory_format=torch.channels_last)
    clock = Stopwatch()
    for key, call in kernels.calls.items():
        kernels.calls[key] = clock.watch("in C", call)
    plain_tail = api.fused_tail
    api.fused_tail = clock.watch("tails, forward", plain_tail)
    for kind in (Standardise, AffineTail):
        kind.backward = staticmethod(clock.watch("tails, backward", kind.backward))  # type: ignore[method-assign]

    def step() -> None:
        network.zero_grad()
        with ops.use("fused"):
            network(x).square().mean().backward()

    for _ in range(3):
        step()
    clock.seconds.clear()
    clock.calls.clear()
    begin = time.perf_counter()
    for _ in range(args.steps):
        step()
    whole = time.perf_counter() - begin
    spent = {name: 1e3 * seconds / args.steps for name, seconds in clock.seconds.items()}
    tails = spent["tails, forward"] + spent["tails, backward"]
    rows = [
        ["the whole step", 1e3 * whole / args.steps, None],
        ["all fused tails", tails, None],
        ["of these in C", spent["in C"], clock.calls["in C"] // args.steps],
        ["of these Python and autograd between the calls", tails - spent["in C"], None],
    ]
    rows = [[name, round(ms, 3), calls] for name, ms, calls in rows]
    tables = {"of a step": table({"part": "", "ms": "{:.1f}", "calls": "{}"}, rows)}
    show(tables)
    setting = f"{args.model}, {args.batch} images at {args.side}², NHWC, every tail fused; mean of {args.steps} steps"
    write(args.out, tables, notes=[setting])


if __name__ == "__main__":
    main()
