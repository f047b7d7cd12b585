"""Networks of the published tables that no option of ours names, and the same networks without attention."""

import re
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from excite.backbones.blocks import Bottleneck
from excite.measure.published import Cell
from excite.registry import list_methods

# Options of a cell that are no options of a network.
COUNTING = ("input", "pooling", "against", "rois", "mask_rois", "at", "stride")
# Those that a network without attention has too.
PLAIN = ("num_classes", "kind", "neck", "frozen_stages", "input", "rois", "mask_rois", "stride")
# Networks whose name is that of their attention.
OWN_NAMES = {"epsanet": "resnet", "emanet": "resnet"}


def plain_cell(cell: Cell) -> Cell | None:
    """Return the cell of the same network without attention; None where it has none, or is compared with another."""
    model = plain_name(cell.model)
    if model == cell.model or cell.convention.startswith(("attention", "reduction")):
        return None
    options = " ".join(o for o in cell.options.split() if o.partition("=")[0] in PLAIN)
    return replace(cell, model=model, options=options)


def plain_name(model: str) -> str:
    """Return a network's name without its attention: `eca_resnet50` gives `resnet50`."""
    methods = "|".join(sorted(list_methods(), key=len, reverse=True))
    name = re.sub(f"^({methods})_", "", model)
    for own, backbone in OWN_NAMES.items():
        name = re.sub(f"^{own}", backbone, name)
    return name


def attend_only(model: nn.Module, places: Sequence[str]) -> None:
    """Leave attention in these places (`layer2`, `layer3.4`) and take it out of every other block."""
    kept = re.compile("(^|[.])(" + "|".join(re.escape(p) for p in places) + ")([.]|$)")
    for path, module in model.named_modules():
        if getattr(module, "attention", None) is not None and not kept.search(path):
            module.attention = None


def stride_first(model: nn.Module) -> None:
    """Move a bottleneck's stride from its 3x3 to its first 1x1 convolution, as in He et al., 2016."""
    for module in model.modules():
        if isinstance(module, Bottleneck) and isinstance(module.conv2, nn.Conv2d):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
