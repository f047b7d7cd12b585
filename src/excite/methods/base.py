"""What the registry knows of a method."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from excite.common.checks import shown

# Any: options are of every kind.

Role = Literal["residual", "between-stages", "conv", "network"]


@dataclass(frozen=True)
class Need:
    """When options have an effect; elsewhere they are refused rather than ignored.

    options: their names; otherwise: when they have none, as in "unless mode='position'"; holds: whether they have one,
    from all options by name.
    """

    options: tuple[str, ...]
    otherwise: str
    holds: Callable[[Mapping[str, Any]], bool]


def stage_digits(value: object) -> tuple[int, ...] | None:
    """Return the digits of a number of three or more odd ones, as authors write sizes per stage (3557), else None."""
    text = shown(value).strip("'")
    return tuple(int(digit) for digit in text) if re.fullmatch("[13579]{3,}", text) else None


# What `hidden` stands for, in every method with a bottleneck.
REDUCTION = Need(("reduction", "divisor"), "where hidden is given", lambda o: o["hidden"] is None)
HIDDEN = Need(("reduction",), REDUCTION.otherwise, REDUCTION.holds)  # of methods with a rounding of their own


@dataclass(frozen=True)
class Method:
    """A method's card.

    build: `build(channels, **options) -> nn.Module`, whose annotations say what the options may be; equation and paper:
    for people; place: where the paper puts it. dims: numbers of space axes it accepts. role: "residual" after the last
    norm of a residual branch, "between-stages", "conv" (replaces a 3x3 convolution), "network" (needs the network's
    bank of descriptors). identity_at_init: a freshly built module returns its input. needs: options without effect in
    some combinations. equals: the code that it was compared with in float64; differs: where it differs, and what could
    not be had.
    """

    build: Callable[..., nn.Module]
    equation: str
    paper: str
    place: str = "after the last norm of the residual branch, before the addition"
    dims: tuple[int, ...] = (1, 2, 3)
    role: Role = "residual"
    identity_at_init: bool = False
    needs: tuple[Need, ...] = ()
    equals: str = ""
    differs: str = ""
