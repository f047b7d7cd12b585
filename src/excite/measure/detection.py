"""One pass through a detector with a fixed number of regions, as the papers' counters do it.

A detector's own forward pass runs on as many regions as it finds, and cannot run without weights. Its parts can:
backbone and neck, dense head, then the region heads on a given number of regions.
"""

from typing import Any, NamedTuple  # Any: torchvision, whose detectors have the parts used here, is not typed

import torch
from torch import nn

from excite.inspect.trace import LayerCall, Trace, run


class Detector(NamedTuple):
    """A detector and its kind: "faster_rcnn", "mask_rcnn" or "retinanet"."""

    model: Any
    kind: str


def trace_detector(detector: Detector, shape: tuple[int, ...], rois: int = 0, mask_rois: int = 0) -> Trace:
    """Run the parts of a detector on an image of `shape` `[1 c h w]`, its heads on `rois` and `mask_rois` regions.

    The image is taken as it is, without the detector's own resizing. Raises ExciteError where a part fails.
    """
    model = detector.model
    image = torch.empty(shape, device="meta")

    def call(x: torch.Tensor) -> None:
        maps = list(model.backbone(x).values())
        if detector.kind == "retinanet":
            model.head(maps)
            return
        model.rpn.head(maps)
        _run_regions(model.roi_heads, maps[0], rois, mask_rois)

    trace = run(model, [image], call)
    return _as_references(trace)


def _run_regions(heads: Any, feature: torch.Tensor, rois: int, mask_rois: int) -> None:
    channels = feature.shape[1]
    if rois:
        side = _side(heads.box_roi_pool)
        heads.box_predictor(heads.box_head(torch.empty(rois, channels, *side, device=feature.device)))
    if mask_rois and heads.mask_head is not None:
        side = _side(heads.mask_roi_pool)
        heads.mask_predictor(heads.mask_head(torch.empty(mask_rois, channels, *side, device=feature.device)))


def _side(pool: Any) -> tuple[int, int]:
    height, width = pool.output_size
    return height, width


def _as_references(trace: Trace) -> Trace:
    """Exchange modules and functions where the papers' detectors have the one and torchvision's the other.

    Counters of modules see a rectifier only where it is a module. In the region proposal network it is a function there
    (here a module); behind the box head's linear layers it is a module there (here a function).
    """
    layers = [c for c in trace.layers if not (c.path.startswith("rpn.head.") and isinstance(c.module, nn.ReLU))]
    added = [
        LayerCall(f"{c.path}.relu", nn.ReLU(), c.y, c.y)
        for c in layers
        if c.path in ("roi_heads.box_head.fc6", "roi_heads.box_head.fc7")
    ]
    trace.layers = layers + added
    return trace
