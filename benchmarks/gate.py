"""The gate of ECA as torch's Conv1d and as `excite.ops.correlate`: forward and backward, by batch and channels.

python benchmarks/gate.py
"""

import itertools

import torch
from torch import nn

from excite.measure.bench import environment, interleave, ratio
from excite.measure.bench.environment import place
from excite.ops.correlate import Correlate


def main() -> None:
    """Print a Markdown table."""
    print(f"{place(environment())}\n")
    print("| batch | channels | Conv1d forward | backward | sums forward | backward | backward, ratio |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for batch, channels in itertools.product((1, 4, 16, 64), (64, 512, 2048)):
        conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)
        s, grad = torch.randn(batch, channels, requires_grad=True), torch.randn(batch, channels)

        def plain(conv: nn.Conv1d = conv, s: torch.Tensor = s) -> torch.Tensor:
            return conv(s[:, None])[:, 0]

        def sums(conv: nn.Conv1d = conv, s: torch.Tensor = s) -> torch.Tensor:
            return Correlate.apply(s, conv.weight.flatten())

        made = plain(), sums()
        inputs = s, conv.weight
        calls = {
            "plain": plain,
            "sums": sums,
            "plain back": lambda made=made, inputs=inputs, grad=grad: torch.autograd.grad(
                made[0], inputs, grad, retain_graph=True
            ),
            "sums back": lambda made=made, inputs=inputs, grad=grad: torch.autograd.grad(
                made[1], inputs, grad, retain_graph=True
            ),
        }
        found = interleave(calls, rounds=15, min_time=0.005)
        times = [f"{1e6 * found[k].median:.0f} us" for k in ("plain", "plain back", "sums", "sums back")]
        r = ratio(found["sums back"], found["plain back"])
        print(f"| {batch} | {channels} | {' | '.join(times)} | {r.value:.2f} ({r.low:.2f}-{r.high:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
