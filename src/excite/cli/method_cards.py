"""The cards of the methods: what the registry knows of each, and what it costs."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from excite.common.checks import annotations, describe
from excite.registry import METHODS, get_method, method_options

# Any: defaults and annotations of every kind.

COUNTED = "multiply-accumulates of convolutions and matrix products (torch's flop counter / 2)"
ROLES = {
    "residual": "residual branch",
    "between-stages": "between stages",
    "conv": "instead of a 3x3 convolution",
    "network": "whole network",
}


@dataclass(frozen=True)
class Card:
    """One method. params, macs: with default options for `channels` channels and maps of side `size`, one sample.

    options: (name, what it may be, default) as text; about: the build function's description of them; parts: (squeeze,
    gate) where the method is made of these; equals, differs: as on the method's own card.
    """

    name: str
    summary: str
    equation: str
    paper: str
    place: str
    role: str
    dims: tuple[int, ...]
    identity_at_init: bool
    parts: tuple[str, str] | None
    options: tuple[tuple[str, str, str], ...]
    about: str
    channels: int
    size: int
    params: int
    macs: int
    equals: str
    differs: str

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain containers."""
        return asdict(self) | {"convention": COUNTED}


def cost(
    name: str, channels: int, size: int, options: Mapping[str, Any] | None = None
) -> tuple[int, int, tuple[str, str] | None]:
    """Return parameters, multiply-accumulates and (squeeze, gate) of a method; options: other than its defaults.

    Raises UsageError where the method cannot be built for so many channels, or has no such option.
    """
    import torch

    from excite.attention import ChannelAttention
    from excite.inspect.trace import run_on_meta
    from excite.registry import create_attention

    with torch.device("meta"):
        module = create_attention(name, channels, **(options or {}))
    macs = run_on_meta(module, (1, channels, size, size)).macs
    parts = None
    if isinstance(module, ChannelAttention):
        parts = (type(module.squeeze).__name__, type(module.gate).__name__)
    return sum(p.numel() for p in module.parameters()), macs, parts


def card(name: str, channels: int = 256, size: int = 56, chosen: Mapping[str, Any] | None = None) -> Card:
    """Return the card of one method; chosen: options that its cost is given with.

    Raises UsageError for an unknown name or option.
    """
    method = get_method(name)
    params, macs, parts = cost(name, channels, size, chosen)
    kinds = annotations(method.build)
    options = tuple(
        (option, describe(kinds.get(option, Any)), repr(p.default)) for option, p in method_options(name).items()
    )
    about = inspect.cleandoc(method.build.__doc__ or "").partition("\n\n")[2]
    return Card(
        name=name,
        summary=METHODS[name].summary,
        equation=method.equation,
        paper=method.paper,
        place=method.place,
        role=method.role,
        dims=method.dims,
        identity_at_init=method.identity_at_init,
        parts=parts,
        options=options,
        about=" ".join(about.split()) or _one_line_options(method.build.__doc__ or ""),
        channels=channels,
        size=size,
        params=params,
        macs=macs,
        equals=method.equals,
        differs=method.differs,
    )


def cards(channels: int = 256, size: int = 56) -> list[Card]:
    """Return the cards of all methods, in the registry's order."""
    return [card(name, channels, size) for name in METHODS]


def _one_line_options(doc: str) -> str:
    """Where the whole docstring is one line: `Build X over ... channels; option: what it is.`"""
    first = inspect.cleandoc(doc).split("\n\n")[0]
    return " ".join(first.partition("; ")[2].split())


def maps(dims: tuple[int, ...]) -> str:
    """Return `1-D, 2-D, 3-D` or part of it."""
    return ", ".join(f"{d}-D" for d in dims)


def source_link(paper: str) -> str:
    """Return a Markdown link: venue and year, to arXiv or to the code; plain text where there is neither."""
    venue = re.search(r"(?:^|[,(:] ?)([A-Z][\w ]*? (?:workshops )?(?:19|20)\d\d)\b", paper)
    arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", paper)
    code = re.search(r"github\.com/[\w./-]+", paper)
    label = venue.group(1).strip() if venue else "code" if code else ""
    if arxiv:
        return f"[{label or 'arXiv'}](https://arxiv.org/abs/{arxiv.group(1)})"
    if code:
        return f"[{label}](https://{code.group(0).rstrip('.,')})"
    return label
