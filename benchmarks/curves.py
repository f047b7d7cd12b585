"""How far rounding drives training curves apart: fused against unfused, beside one memory layout against another.

python benchmarks/curves.py
"""

import torch
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


def apart(one: torch.Tensor, two: torch.Tensor) -> str:
    """Return the largest relative difference."""
    return f"{float(((one - two) / one).abs().max()):.1e}"


def main() -> None:
    torch.set_num_threads(1)
    for rate in (0.0003, 0.002, 0.02):
        plain = curve("reference", rate)
        fused, other = apart(plain, curve("fused", rate)), apart(plain, curve("reference", rate, last=True))
        print(f"rate {rate}: fused against unfused {fused}, unfused NHWC against NCHW {other}", flush=True)
    double = [curve(mode, 0.02, torch.float64) for mode in ("reference", "fused")]
    print(f"rate 0.02, float64: fused against unfused {apart(*double)}")


if __name__ == "__main__":
    main()
