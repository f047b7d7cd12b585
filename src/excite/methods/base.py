"""What the registry knows of a method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

Role = Literal["residual", "between-stages", "conv", "network"]


@dataclass(frozen=True)
class Method:
    """A method's card.

    build: `build(channels, **options) -> nn.Module`; equation and paper: for people; place: where the paper puts it.
    dims: numbers of space axes it accepts. role: "residual" after the last norm of a residual branch,
    "between-stages", "conv" (replaces a 3x3 convolution), "network" (needs the network's bank of descriptors).
    identity_at_init: a freshly built module returns its input.
    """

    build: Callable[..., nn.Module]
    equation: str
    paper: str
    place: str = "after the last norm of the residual branch, before the addition"
    dims: tuple[int, ...] = (1, 2, 3)
    role: Role = "residual"
    identity_at_init: bool = False
