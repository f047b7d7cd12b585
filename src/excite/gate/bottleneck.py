"""The bottleneck of SE: reduce the channels, rectify, expand."""

import torch
from torch import nn

from excite.types import Descriptor, Weights


class Bottleneck(nn.Module):
    """`w = sigmoid(W2 relu(W1 s))`, `[n c 1] -> [n c]` (Hu et al., Squeeze-and-Excitation Networks, eq. 3).

    channels: c; hidden: rows of W1; bias: whether W1 and W2 have biases (authors differ; the paper counts none).
    """

    def __init__(self, channels: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=bias)
        self.act = nn.ReLU(inplace=True)  # a module, as in the reference: some counters see only modules
        self.expand = nn.Linear(hidden, channels, bias=bias)

    def forward(self, descriptor: Descriptor) -> Weights:
        """Return the gated descriptor."""
        return torch.sigmoid(self.expand(self.act(self.reduce(descriptor.squeeze(-1).to(self.reduce.weight.dtype)))))
