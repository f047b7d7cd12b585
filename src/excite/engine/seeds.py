"""Random numbers that depend on (seed, epoch, index) alone, so a resumed run draws what an unbroken one would."""

import numpy as np
import torch
from torch import Tensor


def derive(*parts: int) -> int:
    """Return one 63-bit seed for a tuple of non-negative integers."""
    low, high = np.random.SeedSequence(parts).generate_state(2)
    return (int(high) << 32 | int(low)) & (2**63 - 1)


def generator(*parts: int) -> torch.Generator:
    """Return a CPU generator seeded by a tuple of integers."""
    return torch.Generator().manual_seed(derive(*parts))


def epoch_order(n: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Tensor:
    """Return the order in which one of `world` processes sees `n` images; all of them get equally many."""
    order = torch.randperm(n, generator=generator(seed, epoch))
    return order[: n - n % world][rank::world]
