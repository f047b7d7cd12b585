"""create_detector: Faster R-CNN, Mask R-CNN and RetinaNet on any backbone, with attention where it is asked for."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from excite.backbones.names import check_registered
from excite.card import CARD, DetectorCard, carry, code_refused
from excite.common.options import Option
from excite.detect.bodies import Body, create_body
from excite.detect.c4 import PairRPNHead, split_body
from excite.detect.neck import PyramidBackbone
from excite.errors import UsageError, near, unknown

Number = TypeVar("Number", int, float)
KINDS: dict[str, type[nn.Module]] = {"faster_rcnn": FasterRCNN, "mask_rcnn": MaskRCNN, "retinanet": RetinaNet}
NECKS = ("fpn", "c4")
PARTS = {
    "self", "backbone", "num_classes", "kwargs", "rpn_anchor_generator", "rpn_head", "box_roi_pool", "box_head",
    "box_predictor", "mask_roi_pool", "mask_head", "mask_predictor", "anchor_generator", "head", "proposal_matcher",
}  # fmt: skip


class CategoryRetinaNet(RetinaNet):
    """RetinaNet (Lin et al., ICCV 2017, arXiv:1708.02002) with labels from 1, as in the two-stage detectors.

    torchvision would spend an output on label 0, which no object ever has; the paper (and mmdetection) have none.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, **options: Option) -> None:
        """Build the detector; num_classes counts the background, so there are num_classes - 1 sigmoids per anchor."""
        super().__init__(backbone, num_classes - 1, **options)

    def forward(
        self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]] | None = None
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Return losses in train mode, else detections, whose labels count from 1."""
        if targets is not None:
            targets = [{**t, "labels": t["labels"] - 1} for t in targets]
        output = super().forward(images, targets)
        if self.training:
            return output
        return [{**detection, "labels": detection["labels"] + 1} for detection in output]


def octave_anchors(sizes: tuple[int, ...], ratios: tuple[float, ...], octaves: int) -> AnchorGenerator:
    """Return anchors of `octaves` sizes between each size and its double, in every ratio, one size per level."""
    scales = tuple(tuple(int(s * 2 ** (i / octaves)) for i in range(octaves)) for s in sizes)
    return AnchorGenerator(scales, (ratios,) * len(sizes))


def create_detector(
    kind: str,
    backbone: str,
    num_classes: int = 91,
    *,
    neck: str = "fpn",
    neck_attention: str | None = None,
    neck_attention_options: Mapping[str, Option] | None = None,
    frozen_stages: int = -1,
    frozen_norms: bool = False,
    checkpoint: str | Path | None = None,
    neck_channels: int = 256,
    head_channels: int = 1024,
    mask_channels: int = 256,
    anchor_sizes: Sequence[int] | None = None,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    anchor_octaves: int = 3,
    p6_from: str = "c5",
    class_names: Sequence[str] | None = None,
    **options: Option,
) -> nn.Module:
    """Build a detector.

    kind: "faster_rcnn", "mask_rcnn" or "retinanet". backbone: as for `create_model` ("eca_resnet50", "timm/NAME", ...).
    num_classes: categories plus one for the background (as in torchvision: 81 for COCO's 80 categories); labels start
    at 1. neck: "fpn", or "c4" (faster_rcnn; stage 4 runs on the regions). neck_attention: a method for every pyramid
    level. frozen_stages: -1 nothing, 0 the stem, 1 the stem and stage 1, ...: parameters and norms. frozen_norms: the
    backbone's norms keep their running statistics. checkpoint: classification weights for the backbone; what was
    transferred is in `detector.transfer_report`. neck_channels, head_channels, mask_channels: widths of the pyramid,
    the box head and the mask head. anchor_sizes: pixels, one per level (c4: all on one level). anchor_octaves: sizes
    per level of RetinaNet. p6_from: "c5" or "p5" (RetinaNet). options: those of torchvision's detector (min_size,
    max_size, image_mean, box_score_thresh, rpn_post_nms_top_n_test, ...) and those of the backbone (stem, kernel_size,
    placement, attach, ...).
    The detector carries its `DetectorCard` as `excite_card`. Raises UsageError for what cannot be built.
    """
    _check(kind, neck, num_classes, class_names, neck_attention, p6_from)
    anchor_sizes = _numbers("anchor_sizes", anchor_sizes, int) if anchor_sizes else None
    anchor_ratios = _numbers("anchor_ratios", anchor_ratios, float)
    mine = {
        "neck_attention": neck_attention, "neck_attention_options": dict(neck_attention_options or {}) or None,
        "frozen_stages": frozen_stages, "frozen_norms": frozen_norms, "neck_channels": neck_channels,
        "head_channels": head_channels, "mask_channels": mask_channels, "anchor_octaves": anchor_octaves,
        "anchor_sizes": list(anchor_sizes) if anchor_sizes else None, "anchor_ratios": list(anchor_ratios),
        "p6_from": p6_from,
    }  # fmt: skip
    parts = {k: v for k, v in options.items() if k in torchvision_options(kind)}
    body = _body(kind, backbone, checkpoint, {k: v for k, v in options.items() if k not in parts})
    ratios = tuple(anchor_ratios)
    if neck == "c4":
        detector = _c4(body, num_classes, frozen_stages, frozen_norms, anchor_sizes, ratios, parts)
    else:
        body.freeze(frozen_stages, frozen_norms)
        pyramid = PyramidBackbone(
            body,
            channels=neck_channels,
            maps=3 if kind == "retinanet" else 4,
            extra=p6_from if kind == "retinanet" else "pool",
            attention=neck_attention,
            attention_options=neck_attention_options,
        )
        sizes = _anchor_sizes(anchor_sizes, pyramid.levels)
        if kind == "retinanet":
            anchors = octave_anchors(sizes, ratios, anchor_octaves)
            detector = CategoryRetinaNet(pyramid, num_classes, anchor_generator=anchors, **parts)
        else:
            detector = _two_stage(kind, pyramid, num_classes, sizes, ratios, (head_channels, mask_channels), parts)
    names = list(class_names) if class_names is not None else None
    carry(detector, DetectorCard(kind, backbone, num_classes, neck, {**mine, **options}, names))
    carry(detector, body.report, "transfer_report")
    return detector


def card_of(detector: nn.Module) -> DetectorCard:
    """Return the card that a detector carries. Raises UsageError where it carries none."""
    card = getattr(detector, CARD, None)
    if not isinstance(card, DetectorCard):
        raise UsageError(f"the detector ({type(detector).__name__}) carries no card; build it with create_detector")
    return card


def from_card(card: DetectorCard) -> nn.Module:
    """Build the detector that a card describes. Raises ExciteError where a card from a file names a Python file."""
    if card.source and ":" in card.backbone:
        raise code_refused(card.source, card.backbone, "--backbone")
    if card.source:
        attention = card.options.get("neck_attention")
        check_registered(card.source, card.backbone, attention if isinstance(attention, str) else None)
    return create_detector(
        card.kind, card.backbone, card.num_classes, neck=card.neck, class_names=card.class_names, **card.options
    )


def torchvision_options(kind: str) -> set[str]:
    """Return the options of torchvision's detector class that are plain values, and those of its image transform."""
    names = set(inspect.signature(KINDS[kind].__init__).parameters) - PARTS
    return names | {"size_divisible", "fixed_size"}


def _check(
    kind: str, neck: str, num_classes: int, names: Sequence[str] | None, neck_attention: str | None, p6_from: str
) -> None:
    if kind not in KINDS:
        raise unknown("detector", kind, KINDS)
    if neck not in NECKS:
        raise unknown("neck", neck, NECKS)
    if neck == "c4" and kind != "faster_rcnn":
        raise UsageError(f"neck 'c4' is Faster R-CNN's; {kind} needs neck='fpn'")
    if neck == "c4" and neck_attention not in (None, "none"):
        raise UsageError("neck 'c4' has no pyramid to hold neck_attention; use neck='fpn'")
    if p6_from not in ("c5", "p5"):
        raise unknown("p6_from", p6_from, ("c5", "p5"))
    if num_classes < 2:
        raise UsageError(f"num_classes {num_classes}: it counts the background too, so one category makes 2")
    if names is not None and len(names) != num_classes - 1:
        raise UsageError(f"{len(names)} class names for num_classes {num_classes} (one of them the background)")


def _body(kind: str, backbone: str, checkpoint: str | Path | None, options: dict[str, Option]) -> Body:
    try:
        return create_body(backbone, checkpoint=checkpoint, **options)
    except UsageError as error:
        # A misspelt option may have been meant for the detector rather than the backbone.
        own = {p for p in inspect.signature(create_detector).parameters if p != "options"} | torchvision_options(kind)
        hints = [f"detector option {close[0]!r}" for k in options if k in str(error) and (close := near(k, own))]
        if hints:
            raise UsageError(f"{error}; or did you mean the {' or the '.join(hints)}?") from None
        raise


def _numbers(name: str, values: Sequence[Number] | str, kind: type[Number]) -> list[Number]:
    """Return numbers as a list, also from text such as `8,16,32` (command lines write lists so)."""
    try:
        return [kind(v) for v in (values.split(",") if isinstance(values, str) else values)]
    except (TypeError, ValueError):
        raise UsageError(f"{name}={values!r} is not a list of numbers, such as 32,64,128") from None


def _anchor_sizes(sizes: Sequence[int] | None, levels: int) -> tuple[int, ...]:
    pixels = tuple(int(s) for s in sizes) if sizes else tuple(32 * 2**i for i in range(levels))
    if len(pixels) != levels:
        raise UsageError(f"anchor_sizes has {len(pixels)} sizes; this pyramid has {levels} levels")
    if min(pixels) < 1:
        raise UsageError(f"anchor_sizes {list(pixels)}: sizes are pixels, 1 or more")
    return pixels


def _two_stage(
    kind: str,
    pyramid: PyramidBackbone,
    num_classes: int,
    sizes: tuple[int, ...],
    ratios: tuple[float, ...],
    widths: tuple[int, int],
    options: dict[str, Option],
) -> nn.Module:
    channels = pyramid.out_channels
    names = [str(i) for i in range(pyramid.maps)]
    parts: dict[str, nn.Module] = {
        "rpn_anchor_generator": AnchorGenerator(tuple((s,) for s in sizes), (ratios,) * len(sizes)),
        "box_roi_pool": MultiScaleRoIAlign(names, 7, 2),
        "box_head": TwoMLPHead(channels * 7 * 7, widths[0]),
        "box_predictor": FastRCNNPredictor(widths[0], num_classes),
    }
    if kind == "mask_rcnn":
        parts["mask_roi_pool"] = MultiScaleRoIAlign(names, 14, 2)
        parts["mask_head"] = MaskRCNNHeads(channels, (widths[1],) * 4, 1)
        parts["mask_predictor"] = MaskRCNNPredictor(widths[1], widths[1], num_classes)
    return KINDS[kind](pyramid, **parts, **options)


def _c4(
    body: Body,
    num_classes: int,
    frozen_stages: int,
    frozen_norms: bool,
    sizes: Sequence[int] | None,
    ratios: tuple[float, ...],
    options: dict[str, Option],
) -> nn.Module:
    trunk, head = split_body(body)
    trunk.body.freeze(frozen_stages, frozen_norms)
    head.frozen_norms = frozen_norms
    anchors = AnchorGenerator((tuple(int(s) for s in sizes or (128, 256, 512)),), (ratios,))
    return FasterRCNN(
        trunk,
        rpn_anchor_generator=anchors,
        rpn_head=PairRPNHead(trunk.out_channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=head,
        box_predictor=FastRCNNPredictor(head.out_channels, num_classes),
        **options,
    )
