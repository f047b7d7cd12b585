"""From weights to EMCA's form: which earlier descriptors the blocks fuse, read off the fusions' lengths."""

from itertools import product
from typing import Any

from excite.backbones.emca_plan import EmcaSpec
from excite.backbones.placement import Site
from excite.checkpoints.backbone import Backbone
from excite.errors import ExciteError

CHOICES: tuple[int | str, ...] = ("all", 1, 2, 3, 4, 5, 6)


def emca_options(method: str, backbone: Backbone) -> dict[str, Any]:
    """Return form, stages and blocks. Raises ExciteError where no choice explains the fusions."""
    found = [[m["fusion.weight"].numel() if "fusion.weight" in m else 0 for m in stage] for stage in backbone.blocks]
    released = any("join" in m for stage in backbone.blocks for m in stage)
    form = "released" if released else "paper"
    depths = tuple(len(stage) for stage in found)
    # The released network's own setting first: the last block of every earlier stage.
    for stages, blocks in sorted(
        product(CHOICES, CHOICES), key=lambda c: c != (("all", 1) if released else (1, "all"))
    ):
        spec = EmcaSpec(method, depths=depths, form=form, stages=stages, blocks=blocks)
        expected = [
            [spec.scales(Site(0, s, b, depth)) if spec.plan[s][b] is not None else 0 for b in range(depth)]
            for s, depth in enumerate(depths)
        ]
        if expected == found:
            return {"form": form, "stages": stages, "blocks": blocks}
    raise ExciteError(f"{method}: no choice of earlier stages and blocks gives fusions of {found} scales")
