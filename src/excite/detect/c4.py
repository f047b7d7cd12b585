"""The C4 neck: regions are cut from the third stage's map, and the fourth stage runs on each of them.

Faster R-CNN as in Ren et al. (arXiv:1506.01497) with ResNet (He et al. 2016), in the form of EMANet's VOC experiments:
a region proposal network of 512 channels with two scores per anchor, and linear layers on the pooled stage-4 map.
"""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from excite.backbones.resnet import ResNet
from excite.detect.bodies import Body, freeze_norms
from excite.errors import UsageError
from excite.types import Descriptor, FeatureMap


class C4Backbone(nn.Module):
    """Stem and stages 1 to 3 of a ResNet of ours: images `[n c h w]` -> one map, stride 16 (4 with the CIFAR stem)."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.out_channels = body.channels[2]

    def forward(self, x: FeatureMap) -> OrderedDict[str, FeatureMap]:
        """Return the third stage's map as level "0"."""
        net = cast(ResNet, self.body.net)
        with self.body.gradients():
            x = net.forward_stem(x)
            for stage in range(3):
                x, _ = net.forward_stage(stage, x)
        return OrderedDict([("0", x)])


class StageHead(nn.Module):
    """Stage 4 and a mean: regions `[n c s s]` -> `[n d]`."""

    def __init__(self, stage: nn.Module, channels: int) -> None:
        super().__init__()
        self.stage = stage
        self.out_channels = channels
        self.frozen_norms = False

    def train(self, mode: bool = True) -> "StageHead":
        """Switch the mode; with `frozen_norms` the batch norms stay in eval mode."""
        super().train(mode)
        if self.frozen_norms:
            freeze_norms(self)
        return self

    def forward(self, x: FeatureMap) -> Descriptor:
        """Return one descriptor per region."""
        return self.stage(x).mean((2, 3))


class PairRPNHead(nn.Module):
    """Region proposals from a 3x3 convolution, with a background and an object score per anchor.

    A softmax over two scores is the sigmoid of their difference, which is what is handed on.
    """

    def __init__(self, in_channels: int, anchors: int, channels: int = 512) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.scores = nn.Conv2d(channels, 2 * anchors, 1)
        self.boxes = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.scores, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, maps: list[FeatureMap]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return object logits `[n a h w]` and box deltas `[n 4a h w]` of every map."""
        logits, boxes = [], []
        for x in maps:
            x = F.relu(self.conv(x))
            pair = self.scores(x).unflatten(1, (-1, 2))
            logits.append(pair[:, :, 1] - pair[:, :, 0])
            boxes.append(self.boxes(x))
        return logits, boxes


def split_body(body: Body) -> tuple[C4Backbone, StageHead]:
    """Cut a body after its third stage. Raises UsageError where stage 4 cannot run on a region alone."""
    net = body.net
    if not isinstance(net, ResNet) or len(body.channels) != 4:
        raise UsageError("neck 'c4' needs one of our ResNets with four stages (resnet18 to resnet152); use neck='fpn'")
    if net.spec.card.role == "network":
        raise UsageError(
            "neck 'c4' runs stage 4 on single regions, where the descriptors that EMCA collects over the image do not "
            "exist; use neck='fpn'"
        )
    head = StageHead(net.get_submodule("layer4"), body.channels[3])
    trunk = Body(net, body.channels[:3], net.parts()[:4])
    del net.layer4
    trunk.report = body.report
    return C4Backbone(trunk), head
