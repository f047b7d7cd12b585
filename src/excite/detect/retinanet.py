"""RetinaNet (Lin et al., ICCV 2017, arXiv:1708.02002) with one sigmoid per category and none for the background."""

from typing import Any

import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

Target = dict[str, torch.Tensor]


class CategoryRetinaNet(RetinaNet):
    """torchvision's RetinaNet with labels from 1, as in the two-stage detectors.

    torchvision would spend an output on label 0, which no object ever has; the paper (and mmdetection) have none.
    """

    def __init__(self, backbone: torch.nn.Module, num_classes: int, **options: Any) -> None:
        """Build the detector; num_classes counts the background, so there are num_classes - 1 sigmoids per anchor."""
        super().__init__(backbone, num_classes - 1, **options)

    def forward(self, images: list[torch.Tensor], targets: list[Target] | None = None) -> Any:
        """Return losses in train mode, else detections, whose labels count from 1."""
        if targets is not None:
            targets = [{**t, "labels": t["labels"] - 1} for t in targets]
        found = super().forward(images, targets)
        if self.training:
            return found
        return [{**d, "labels": d["labels"] + 1} for d in found]


def octave_anchors(sizes: tuple[int, ...], ratios: tuple[float, ...], octaves: int) -> AnchorGenerator:
    """Return anchors of `octaves` sizes between each size and its double, in every ratio, one size per level."""
    scales = tuple(tuple(int(s * 2 ** (i / octaves)) for i in range(octaves)) for s in sizes)
    return AnchorGenerator(scales, (ratios,) * len(sizes))
