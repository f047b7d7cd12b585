"""Which earlier descriptors every block of an EMCA network sees: static numbers, known before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from torch import nn

from excite.backbones.placement import AttentionSpec, Site
from excite.errors import UsageError, unknown
from excite.methods.emca import FORMS
from excite.registry import create_attention, method_options

ALL = "all"
PLACES = ("block", "branch")

Sources = tuple[int, ...]


def count(value: int | str, name: str) -> int:
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
    sources: list[int] = []
    for s in range(max(-1, stage - stages), stage):
        if s >= 0:
            sources += range(first[s + 1] - min(blocks, depths[s]), first[s + 1])
        elif with_stem and blocks:
            sources.append(0)
    return tuple(sources)


@dataclass(frozen=True)
class EmcaSpec(AttentionSpec):
    """An AttentionSpec that also says where each block's context comes from.

    form: "paper" (one module per stage, on its first block) or "released" (one in every block); stages, blocks: S and
    N of the paper, how many earlier stages and how many (last) blocks of each, integers or "all"; where: "branch" (the
    residual branch is squeezed and scaled, before the addition, as in the released code and the published tables) or
    "block" (the block's output, as drawn in the paper); same_stage: also the earlier blocks of a block's own stage
    (released form only). depths: blocks per stage of the network, which fills them in.
    """

    form: str = "paper"
    stages: int | str = 1
    blocks: int | str = ALL
    where: str = "branch"
    same_stage: bool = False
    depths: tuple[int, ...] = ()
    plan: tuple[tuple[Sources | None, ...], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise unknown("form of EMCA", self.form, FORMS)
        if self.where not in PLACES:
            raise unknown("place of EMCA (where)", self.where, PLACES)
        if self.placement != "all":
            raise UsageError(
                f"{self.method}: EMCA has its own places (form, stages, blocks), so that placement does not apply; "
                f"leave placement={self.placement!r} out"
            )
        object.__setattr__(self, "plan", self._plan())

    def _plan(self) -> tuple[tuple[Sources | None, ...], ...]:
        stages, blocks = count(self.stages, "stages"), count(self.blocks, "blocks")
        if (stages == 0) != (blocks == 0):
            raise UsageError(
                f"emca: stages={self.stages!r} with blocks={self.blocks!r}; either both are 0 (one scale) or none is"
            )
        released = self.form == "released"
        if self.same_stage not in (True, False):
            raise UsageError(f"emca: same_stage={self.same_stage!r}; expected true or false")
        if self.same_stage and not released:
            raise UsageError("emca: same_stage belongs to form='released'; the paper's form has one module per stage")
        plan: list[tuple[Sources | None, ...]] = []
        first = 1
        for stage, depth in enumerate(self.depths):
            sources = earlier(self.depths, stage, stages, blocks, with_stem=released)
            own = [tuple(range(first, first + block)) if self.same_stage else () for block in range(depth)]
            rest = [(*sources, *own[block]) if released else None for block in range(1, depth)]
            plan.append((() if released else sources, *rest))
            first += depth
        return tuple(plan)

    def within(self, site: Site) -> int:
        """Return the number of fused blocks of a site's own stage, itself included, 0 for no fusion."""
        return site.block + 1 if self.same_stage and site.block else 0

    def scales(self, site: Site) -> int:
        """Return the number of fused scales at a site, 0 for no fusion."""
        sources = self.plan[site.stage][site.block]
        if sources is None or count(self.stages, "stages") == 0:
            return 0
        same = site.block if self.same_stage else 0
        return 0 if self.form == "released" and site.block == 0 else len(sources) - same + 1

    def residual(self, site: Site, stages: int) -> nn.Module | None:
        """Build the EMCA module of a block, or None where it has none."""
        if self.plan[site.stage][site.block] is None:
            return None
        options = self.options_at(site.stage, stages)
        options.update(form=self.form, scales=self.scales(site), within=self.within(site))
        return create_attention(self.method, site.channels, **options)

    def for_depths(self, depths: Sequence[int]) -> Self:
        """Return the spec for a network with these numbers of blocks per stage."""
        return replace(self, depths=tuple(depths))

    def used(self) -> frozenset[int]:
        """Return the blocks that some block reads, numbered from 1 through the network; 0 is the stem."""
        return frozenset(i for stage in self.plan for sources in stage if sources is not None for i in sources)

    def sources(self, stage: int, block: int) -> Sources:
        """Return what a block reads, oldest first, numbered as in `used`."""
        return self.plan[stage][block] or ()

    def squeeze(self, index: int) -> nn.Module | None:
        """Build what describes block number `index` for later ones, or None where nobody reads it."""
        if index not in self.used():
            return None
        squeeze = create_attention(self.method, 16).squeeze
        assert isinstance(squeeze, nn.Module)
        return squeeze


PLAN_OPTIONS = frozenset(
    {f.name for f in fields(EmcaSpec) if f.init} - {f.name for f in fields(AttentionSpec)} - {"depths"}
)


def emca_options(method: str) -> frozenset[str]:
    """Return the options of an EMCA method on a network: those of the plan and those of its gate."""
    return PLAN_OPTIONS | (method_options(method).keys() - {"scales", "within"}) | {"init"}


def emca_spec(method: str, options: Mapping[str, object], placement: str = "all") -> EmcaSpec:
    """Return the spec for options of `emca_options`; the released form reads the last block of all earlier stages.

    Raises UsageError for values that do not fit.
    """
    gate = {name: value for name, value in options.items() if name not in PLAN_OPTIONS}
    plan: dict[str, Any] = {name: value for name, value in options.items() if name in PLAN_OPTIONS}  # checked there
    if plan.get("form") == "released":
        if plan.get("where", "branch") != "branch":
            raise UsageError("emca: the released form works on the residual branch only; leave `where` out")
        plan = {"stages": "all", "blocks": 1, **plan, "where": "branch"}
    return EmcaSpec(method, gate, placement, **plan)
