"""Random numbers that depend on (seed, epoch, index) alone, so a resumed run draws what an unbroken one would.

Each use has a stream of its own, so that no two of them ever draw the same numbers.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Stream = Literal["order", "regions", "dropout", "mixing", "augmentation"]

# The last words of a stream's entropy. Per epoch: the order of images, the regions a detector samples, dropout; the
# others have an index (of a batch or an image) before them. SeedSequence pads with zeros up to four words: no stream
# may be another one with zeros behind it.
WORDS: dict[Stream, tuple[int, ...]] = {
    "order": (0,),
    "regions": (1,),
    "dropout": (0, 1),
    "mixing": (2,),
    "augmentation": (3,),
}
INDEXED: tuple[Stream, ...] = ("mixing", "augmentation")


def derive(stream: Stream, seed: int, epoch: int, rank: int = 0, index: int = 0) -> int:
    """Return one 63-bit seed of a stream for non-negative integers; `index` counts in indexed streams only."""
    position = (index,) if stream in INDEXED else ()
    low, high = np.random.SeedSequence((seed, epoch, rank, *position, *WORDS[stream])).generate_state(2)
    return (int(high) << 32 | int(low)) & (2**63 - 1)


def generator(stream: Stream, seed: int, epoch: int, rank: int = 0, index: int = 0) -> torch.Generator:
    """Return a CPU generator for what `derive` gives."""
    return torch.Generator().manual_seed(derive(stream, seed, epoch, rank, index))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator of the CPU within the block; afterwards it goes on where it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def epoch_order(n: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Tensor:
    """Return the order in which one of `world` processes sees `n` images; all of them get equally many."""
    order = torch.randperm(n, generator=generator("order", seed, epoch))
    return order[: n - n % world][rank::world]


def balanced_order(labels: Tensor, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Tensor:
    """Return as many images as there are labels [n], drawn again and again, all classes equally often on average.

    Images with a label below 0 are never drawn.
    """
    n = len(labels)
    known = labels.clamp_min(0)
    weights = torch.where(labels >= 0, 1 / torch.bincount(known)[known].double(), 0.0)
    order = torch.multinomial(weights, n, replacement=True, generator=generator("order", seed, epoch))
    return order[: n - n % world][rank::world]
