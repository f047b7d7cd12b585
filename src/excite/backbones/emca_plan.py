"""Which earlier descriptors every block of an EMCA network sees: static numbers, known before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from excite.backbones.placement import AttentionSpec, Site
from excite.errors import UsageError, unknown
from excite.methods.emca import FORMS
from excite.registry import create_attention

ALL = "all"
PLACES = ("block", "branch")

Sources = tuple[int, ...]


def count(value: Any, name: str) -> int:
    """Return a number of stages or blocks: a non-negative integer or "all". Raises UsageError otherwise."""
    if value == ALL:
        return 1 << 30
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(value, bool | float):
        raise UsageError(f"emca: {name}={value!r}; expected an integer from 0 on, or 'all'")
    return number


def earlier(depths: Sequence[int], stage: int, stages: int, blocks: int, with_stem: bool) -> Sources:
    """Return the bank's indices of the last `blocks` blocks of each of the `stages` stages before `stage`.

    The bank holds the stem's descriptor (0), then one per block in order; the stem counts as the stage before the
    first where `with_stem` is true. Oldest first.
    """
    first = [1]
    for depth in depths:
        first.append(first[-1] + depth)
    found: list[int] = []
    for s in range(max(-1, stage - stages), stage):
        if s >= 0:
            found += range(first[s + 1] - min(blocks, depths[s]), first[s + 1])
        elif with_stem and blocks:
            found.append(0)
    return tuple(found)


@dataclass(frozen=True)
class EmcaSpec(AttentionSpec):
    """An AttentionSpec that also says where each block's context comes from.

    form: "paper" (one module per stage, on its first block) or "released" (one in every block); stages, blocks: S and
    N of the paper, how many earlier stages and how many (last) blocks of each, integers or "all"; where: "block" (the
    block's output is squeezed and scaled, as drawn in the paper) or "branch" (the residual branch, before the
    addition).
    """

    form: str = "paper"
    depths: tuple[int, ...] = ()
    stages: int | str = 1
    blocks: int | str = ALL
    where: str = "block"
    plan: tuple[tuple[Sources | None, ...], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise unknown("form of EMCA", self.form, FORMS)
        if self.where not in PLACES:
            raise unknown("place of EMCA (where)", self.where, PLACES)
        object.__setattr__(self, "plan", self._plan())

    def _plan(self) -> tuple[tuple[Sources | None, ...], ...]:
        stages, blocks = count(self.stages, "stages"), count(self.blocks, "blocks")
        if (stages == 0) != (blocks == 0):
            raise UsageError(
                f"emca: stages={self.stages!r} with blocks={self.blocks!r}; either both are 0 (one scale) or none is"
            )
        released = self.form == "released"
        made = []
        for stage, depth in enumerate(self.depths):
            sources = earlier(self.depths, stage, stages, blocks, with_stem=released)
            rest: Sources | None = sources if released else None
            made.append((() if released else sources, *[rest] * (depth - 1)))
        return tuple(made)

    def scales(self, site: Site) -> int:
        """Return the number of fused scales at a site, 0 for no fusion."""
        sources = self.plan[site.stage][site.block]
        if sources is None or count(self.stages, "stages") == 0:
            return 0
        return 0 if self.form == "released" and site.block == 0 else len(sources) + 1

    def residual(self, site: Site, stages: int) -> nn.Module | None:
        """Build the EMCA module of a block, or None where it has none."""
        if self.plan[site.stage][site.block] is None:
            return None
        options: Mapping[str, Any] = self.options_at(site.stage, stages)
        return create_attention(self.method, site.channels, form=self.form, scales=self.scales(site), **options)

    def used(self) -> set[int]:
        """Return the bank's indices that some block reads."""
        return {i for stage in self.plan for sources in stage if sources is not None for i in sources}
