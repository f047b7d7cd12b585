"""Parameter counts of the papers' detection tables, computed on the meta device."""

import pytest
import torch

from excite.detect.bodies import count_trainable
from excite.detect.detector import create_detector


def build(kind, backbone, num_classes=81, **options):
    with torch.device("meta"):
        return create_detector(kind, backbone, num_classes, **options)


def total(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "backbone", "trainable"),
    [
        ("faster_rcnn", "resnet50", 41531812),
        ("mask_rcnn", "resnet50", 44175349),
        ("retinanet", "resnet50", 37743348),
        ("faster_rcnn", "resnet101", 60523940),
        ("mask_rcnn", "resnet101", 63167477),
        ("retinanet", "resnet101", 56735476),
        ("faster_rcnn", "se_resnet50", 44022180),
        ("mask_rcnn", "se_resnet50", 46665717),
        ("retinanet", "se_resnet50", 40233716),
    ],
)
def test_trainable_parameters_of_the_coco_tables(kind, backbone, trainable):
    model = build(kind, backbone, frozen_stages=1)
    assert count_trainable(model) == trainable


def test_frozen_stem_and_stage_hold_225344_parameters():
    model = build("faster_rcnn", "resnet50", frozen_stages=1)
    assert total(model) - count_trainable(model) == 225344


def test_eca_adds_its_kernels_in_trainable_stages_only():
    # k = 3, 5, 5, 7 with 3, 4, 6, 3 blocks: 9 in the frozen stage, 71 in the others.
    model = build("faster_rcnn", "eca_resnet50", frozen_stages=1, kernel_size="3,5,5,7")
    assert count_trainable(model) == 41531812 + 20 + 30 + 21
    assert total(model) == 41757156 + 80


@pytest.mark.parametrize(
    ("backbone", "options", "parameters"),
    [
        ("resnet50", {}, 28469983),
        ("se_resnet50", {}, 30984927),
        ("eca_resnet50", {"kernel_size": "3,5,5,7"}, 28470063),
    ],
)
def test_c4_parameters_of_the_voc_table(backbone, options, parameters):
    model = build("faster_rcnn", backbone, 21, neck="c4", **options)
    assert total(model) == count_trainable(model) == parameters
    rpn = total(model.rpn)
    assert rpn == 4746806
    assert total(model.roi_heads.box_predictor) == 215145


def test_timm_and_torchvision_resnets_count_alike():
    for name in ("timm/resnet50", "torchvision/resnet50"):
        assert count_trainable(build("faster_rcnn", name, frozen_stages=1)) == 41531812


def test_neck_attention_adds_one_module_per_level():
    plain = total(build("faster_rcnn", "resnet18"))
    with_eca = total(build("faster_rcnn", "resnet18", neck_attention="eca"))
    assert with_eca - plain == 4 * 5  # k = 5 for 256 channels, four levels
    with_se = total(build("retinanet", "resnet18", neck_attention="se", neck_attention_options={"reduction": 8}))
    assert with_se - total(build("retinanet", "resnet18")) == 3 * 2 * 256 * 32


def test_p6_from_p5_has_a_smaller_convolution():
    c5, p5 = (total(build("retinanet", "resnet50", p6_from=p)) for p in ("c5", "p5"))
    assert c5 - p5 == (2048 - 256) * 256 * 9


def test_retinanet_has_no_background_output():
    model = build("retinanet", "resnet18", 81)
    assert model.head.classification_head.cls_logits.out_channels == 80 * 9
