"""No change of accuracy: the seeded training curves of fused and unfused networks agree."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from excite import ops
from excite.models import create_model


def curve(mode: str, name: str, rate: float, dtype: torch.dtype) -> torch.Tensor:
    """Return the losses of 50 steps of SGD on the digits, 8x8, 32 a batch."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=10, in_channels=1, width=8).train().to(dtype)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=dtype)[:, None]
    labels = torch.tensor(digits.target)
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    losses = []
    with ops.use(mode):
        for step in range(50):
            batch = torch.arange(step * 32, step * 32 + 32) % len(labels)
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return torch.stack(losses)


# Training is chaotic: at larger rates a change of the memory layout alone moves the float32 curve of the unfused
# network further than fusing does (docs/free.md). The small rate shows float32; float64 shows a rate that learns.
@pytest.mark.parametrize(
    ("name", "rate", "dtype", "limit"),
    [("eca_resnet20", 3e-4, torch.float32, 1e-4), ("se_resnet20", 2e-2, torch.float64, 1e-6)],
)
def test_fifty_steps_agree(name: str, rate: float, dtype: torch.dtype, limit: float) -> None:
    one, two = curve("reference", name, rate, dtype), curve("fused", name, rate, dtype)
    assert one[-10:].mean() < one[:3].mean()
    assert not torch.equal(one, two)  # or the fused form did not run
    assert float(((one - two) / one).abs().max()) <= limit
