"""A site: a place in a network where attention may go."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["residual", "concat", "block", "stage-end", "attention", "conv", "named"]
PRESETS = ("residual", "stage-ends", "between-stages", "all-blocks", "first-in-stage", "last-in-stage")


@dataclass(frozen=True)
class Site:
    """One place for attention.

    path: the module there. channels: of the map that attention will weigh. kind: "residual" (end of a residual branch,
    before the addition), "concat" (the same, before a concatenation with the shortcut), "block" (end of a block without
    a shortcut), "stage-end", "attention" (attention that the network came with), "conv" (the k x k convolution of a
    residual branch) or "named" (asked for by path). stage, block: position counted from 0; a stage is a run of blocks
    of one spatial size. size: spatial size of the map when it was found. place: attention goes "after" the
    module, "before" it (where the module hands its input through, such as drop path) or "instead" of it.
    presets: names under which `attach` selects the site.
    """

    path: str
    channels: int
    kind: Kind
    stage: int = 0
    block: int = 0
    size: tuple[int, ...] = ()
    place: Literal["after", "before", "instead"] = "after"
    presets: tuple[str, ...] = ()
