"""Where attention goes in a backbone, with which options at each place, and what it reads there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from torch import nn

from excite.backbones.lists import per_stage
from excite.common.options import Option
from excite.errors import unknown
from excite.methods.base import Method
from excite.registry import create_attention, get_method, method_options

PLACEMENTS = ("all", "first", "last")


class Site(NamedTuple):
    """One place: its channels, its stage (from 0), its block in the stage (from 0), and the stage's blocks."""

    channels: int
    stage: int
    block: int
    blocks: int


def at_stage(method: str, options: Mapping[str, Option], stage: int, stages: int) -> dict[str, Option]:
    """Return the options for one stage: of a list of one entry per stage that stage's, else the value itself.

    Where the method's own default is a sequence (a kernel per branch), a plain list is the value, and a list of lists
    has one per stage.
    """
    known = method_options(method)
    chosen = {}
    for name, value in options.items():
        sequence = name in known and isinstance(known[name].default, list | tuple)
        nested = isinstance(value, list | tuple) and bool(value) and all(isinstance(v, list | tuple) for v in value)
        chosen[name] = value if sequence and not nested else per_stage(value, stage, stages, name)
    return chosen


@dataclass(frozen=True)
class AttentionSpec:
    """A method, its options (each one value, or one per stage) and its placement in every stage.

    placement: "all" blocks, the "first" or the "last" block of each stage.
    """

    method: str = "none"
    options: Mapping[str, Option] = field(default_factory=dict)
    placement: str = "all"

    def __post_init__(self) -> None:
        if self.placement not in PLACEMENTS:
            raise unknown("placement", self.placement, PLACEMENTS)

    @property
    def card(self) -> Method:
        """The method's card."""
        return get_method(self.method)

    def selects(self, block: int, blocks: int) -> bool:
        """Tell whether block number `block` of a stage of `blocks` gets attention."""
        if self.method == "none":
            return False
        return {"all": True, "first": block == 0, "last": block == blocks - 1}[self.placement]

    def options_at(self, stage: int, stages: int) -> dict[str, Option]:
        """Return the options for one stage."""
        return at_stage(self.method, self.options, stage, stages)

    def residual(self, site: Site, stages: int) -> nn.Module | None:
        """Build the module for the end of a residual branch, or None where there is none."""
        if self.card.role != "residual" or not self.selects(site.block, site.blocks):
            return None
        return create_attention(self.method, site.channels, **self.options_at(site.stage, stages))

    def conv3x3(self, site: Site, stages: int, out_channels: int, stride: int) -> nn.Module | None:
        """Build the module that replaces a 3x3 convolution, or None where the convolution stays."""
        if self.card.role != "conv" or not self.selects(site.block, site.blocks):
            return None
        options = self.options_at(site.stage, stages)
        return create_attention(self.method, site.channels, out_channels=out_channels, stride=stride, **options)

    def between(self, channels: int, stage: int, stages: int) -> nn.Module | None:
        """Build the module after stage number `stage` (not after the last), or None."""
        if self.card.role != "between-stages" or stage == stages - 1:
            return None
        return create_attention(self.method, channels, **self.options_at(stage, stages))

    # Attention that reads earlier blocks answers the following questions (see EmcaSpec); other attention reads none.

    @property
    def where(self) -> str | None:
        """What a block squeezes and scales, "block" or "branch"; None for attention without a context."""
        return None

    def for_depths(self, depths: Sequence[int]) -> Self:
        """Return the spec for a network with these numbers of blocks per stage."""
        return self

    def used(self) -> frozenset[int]:
        """Return the blocks that some block reads, numbered from 1 through the network; 0 is the stem."""
        return frozenset()

    def sources(self, stage: int, block: int) -> tuple[int, ...]:
        """Return what a block reads, oldest first, numbered as in `used`."""
        return ()

    def squeeze(self, index: int) -> nn.Module | None:
        """Build what describes block number `index` for later ones, or None where nobody reads it."""
        return None
