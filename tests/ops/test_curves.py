"""No change of accuracy: the seeded training curves of fused and unfused networks agree."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from excite import ops
from excite.models import create_model


def curve(mode: str, name: str, steps: int) -> torch.Tensor:
    """Return the losses of `steps` steps of SGD on the digits, 8x8, 32 a batch."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=10, in_channels=1).train()
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    losses = []
    with ops.use(mode):
        for step in range(steps):
            batch = torch.arange(step * 32, step * 32 + 32) % len(labels)
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("name", ["se_resnet20", "eca_resnet20"])
def test_fifty_steps_agree(name: str) -> None:
    one, two = curve("reference", name, 50), curve("fused", name, 50)
    assert one[-10:].mean() < 0.7 * one[:3].mean()
    assert not torch.equal(one, two)  # or the fused form did not run
    assert float(((one - two) / one).abs().max()) <= 1e-4
