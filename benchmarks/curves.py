"""How far rounding drives training curves apart: fused against unfused, beside one memory layout against another.

python benchmarks/curves.py
"""

import argparse

import torch
from record import add_out, show, table, write
from sklearn.datasets import load_digits
from torch import nn

from excite import ops
from excite.models import create_model

STEPS, BATCH = 50, 32


def curve(mode: str, rate: float, dtype: torch.dtype = torch.float32, last: bool = False) -> torch.Tensor:
    """Return the losses of ECA-ResNet-20 on the digits; last: channels-last."""
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    network = create_model("eca_resnet20", num_classes=10, in_channels=1).train().to(dtype, memory_format=layout)
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16, dtype=dtype)[:, None], torch.tensor(digits.target)
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    losses = []
    with ops.use(mode):
        for step in range(STEPS):
            batch = torch.arange(step * BATCH, (step + 1) * BATCH) % len(labels)
            loss = nn.functional.cross_entropy(network(images[batch].contiguous(memory_format=layout)), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return torch.stack(losses)


def apart(one: torch.Tensor, two: torch.Tensor) -> float:
    """Return the largest relative difference."""
    return float(((one - two) / one).abs().max())


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_out(parser, "curves")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rates = (0.0003, 0.002, 0.02)
    plain = {rate: curve("reference", rate) for rate in rates}
    double = [curve(mode, rates[-1], torch.float64) for mode in ("reference", "fused")]
    rows = [
        ["fused against unfused, float32", *(apart(plain[r], curve("fused", r)) for r in rates)],
        [
            "unfused NHWC against unfused NCHW, float32",
            *(apart(plain[r], curve("reference", r, last=True)) for r in rates),
        ],
        ["fused against unfused, float64", None, None, apart(*double)],
    ]
    tables = {"largest relative difference": table({"curves": "", **{f"rate {r}": "{:.1e}" for r in rates}}, rows)}
    show(tables)
    write(args.out, tables, notes=[f"ECA-ResNet-20 on the digits, {STEPS} steps of SGD"])


if __name__ == "__main__":
    main()
