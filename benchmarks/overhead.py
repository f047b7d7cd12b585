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

from excite import ops  # noqa: E402
from excite.measure.bench import environment  # noqa: E402
from excite.measure.bench.environment import in_words  # noqa: E402
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
    """Print milliseconds per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="eca_mobilenet_v2")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--steps", type=int, default=20)
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
    print(f"{in_words(environment())}; {args.model}, {args.batch} at {args.side}x{args.side}, NHWC, every tail fused\n")
    print("| of a step | ms | calls |\n|---|---:|---:|")
    print(f"| all | {1e3 * whole / args.steps:.1f} | |")
    for name, seconds in clock.seconds.items():
        print(f"| {name} | {1e3 * seconds / args.steps:.2f} | {clock.calls[name] // args.steps} |")


if __name__ == "__main__":
    main()
