"""create_detector: forward, freezing, necks, backbones, errors."""

import pytest
import torch

from excite.detect.bodies import Body, count_trainable, create_body
from excite.detect.detector import card_of, create_detector, from_card
from excite.errors import UsageError

TINY = {
    "stem": "imagenet", "width": 8, "neck_channels": 16, "head_channels": 16, "mask_channels": 8, "min_size": 64,
    "max_size": 64, "anchor_sizes": [8, 16, 32, 64],
}  # fmt: skip
RETINA = {**TINY, "anchor_sizes": [8, 16, 32, 64, 128], "anchor_octaves": 1}


def batch(masks=False, empty=False):
    torch.manual_seed(0)
    images = [torch.rand(3, 64, 64), torch.rand(3, 48, 64)]
    targets = []
    for image in images:
        boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 10.0, 60.0, 40.0]])
        target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
        if masks:
            target["masks"] = torch.zeros(2, *image.shape[1:], dtype=torch.uint8)
            target["masks"][0, 4:30, 4:30] = 1
            target["masks"][1, 10:40, 20:60] = 1
        targets.append(target)
    if empty:
        for target in targets:
            for key in target:
                target[key] = target[key][:0]
    return images, targets


def options_of(kind):
    return RETINA if kind == "retinanet" else TINY


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn", "retinanet"])
@pytest.mark.parametrize("empty", [False, True])
def test_losses_are_finite_and_reach_every_parameter(kind, empty):
    model = create_detector(kind, "eca_resnet20", 4, neck_attention="eca", **options_of(kind)).train()
    images, targets = batch(kind == "mask_rcnn", empty)
    losses = model(images, targets)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn", "retinanet"])
def test_detections_carry_labels_from_one(kind):
    torch.manual_seed(0)
    threshold = {"score_thresh": 0.0} if kind == "retinanet" else {"box_score_thresh": 0.0}
    model = create_detector(kind, "eca_resnet20", 4, **options_of(kind), **threshold).eval()
    images, _ = batch()
    with torch.no_grad():
        found = model(images)
    assert len(found) == 2
    assert len(found[0]["boxes"]) > 0
    assert found[0]["labels"].min() >= 1
    assert found[0]["labels"].max() <= 3
    assert ("masks" in found[0]) == (kind == "mask_rcnn")


def test_retinanet_trains_the_output_of_its_label():
    # With torchvision's own labels the first category would be trained as the second output.
    torch.manual_seed(0)
    model = create_detector("retinanet", "resnet20", 3, **RETINA).train()
    images, targets = batch()
    for target in targets:
        target["labels"] = torch.ones_like(target["labels"])
    sum(model(images, targets).values()).backward()
    # A gradient step raises the scores of the first category (it has positives) and lowers those of the second.
    first, second = model.head.classification_head.cls_logits.bias.grad.view(-1, 2).sum(0)
    assert first < 0 < second


@pytest.mark.parametrize("name", ["emca_eca_resnet20", "se_resnet20", "cbam_resnet20", "bam_resnet20", "srm_resnet20"])
def test_attention_backbones_of_ours(name):
    model = create_detector("faster_rcnn", name, 3, **TINY).train()
    sum(model(*batch()).values()).backward()
    unused = [n for n, p in model.backbone.body.named_parameters() if p.grad is None]
    assert not unused


def test_the_bank_of_emca_works_inside():
    body = create_body("emca_eca_resnet20", stem="imagenet", width=8).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = body(x)
    assert [m.shape[1] for m in maps] == list(body.channels) == [8, 16, 32]
    # The last stage reads the stage before it: without those descriptors the result differs.
    fusion = body.net.layer3[0].attention.fusion
    fusion.register_forward_pre_hook(
        lambda module, args: ([*(torch.zeros_like(d) for d in args[0][:-1]), args[0][-1]],)
    )
    assert not torch.allclose(body(x)[-1], maps[-1])


def test_mobilenet_and_its_taps():
    body = create_body("eca_mobilenet_v2", width_mult=0.25)
    maps = body(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == list(body.channels)
    assert [m.shape[2] for m in maps] == [16, 8, 4, 2]
    body.freeze(1)
    frozen = {n for n, p in body.net.named_parameters() if not p.requires_grad}
    assert any(n.startswith("features.0.") for n in frozen)
    assert not any(n.startswith("features.5.") for n in frozen)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_foreign_bodies_give_four_maps(name):
    body = create_body(name).eval()
    maps = body(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]


def test_frozen_stages_hold_parameters_and_norms():
    model = create_detector("faster_rcnn", "eca_resnet20", 3, frozen_stages=1, **TINY)
    model.train()
    net = model.backbone.body.net
    before = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model(*batch()).values()).backward()
    optimizer.step()
    after = net.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    frozen = {k for k in before if k.startswith(("conv1.", "bn1.", "layer1."))}
    assert not changed & frozen
    assert any(k.startswith("layer2") and k.endswith("running_mean") for k in changed)
    assert any(k.startswith("layer2") and k.endswith("conv1.weight") for k in changed)


def test_frozen_norms_keep_statistics_but_train_scales():
    model = create_detector("faster_rcnn", "eca_resnet20", 3, frozen_norms=True, **TINY).train()
    net = model.backbone.body.net
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    sum(model(*batch()).values()).backward()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert net.layer1[0].bn1.weight.grad is not None
    assert not net.layer1[0].bn1.training
    assert net.layer1.training


def test_a_paused_body_gets_no_gradient_and_learns_again():
    model = create_detector("faster_rcnn", "resnet20", 3, **TINY).train()
    body = next(m for m in model.modules() if isinstance(m, Body))
    body.pause(True)
    assert not body.net.bn1.training
    sum(model(*batch()).values()).backward()
    assert all(p.grad is None for p in body.parameters())
    body.pause(False)
    sum(model(*batch()).values()).backward()
    assert all(p.grad is not None for p in body.parameters())


def test_c4_runs_and_pauses():
    options = {"min_size": 64, "max_size": 64, "rpn_post_nms_top_n_train": 8, "box_batch_size_per_image": 8}
    model = create_detector("faster_rcnn", "eca_resnet18", 3, neck="c4", frozen_norms=True, **options).train()
    assert not model.roi_heads.box_head.stage[0].bn1.training
    body = next(m for m in model.modules() if isinstance(m, Body))
    body.pause(True)
    sum(model(*batch()).values()).backward()
    assert body.net.conv1.weight.grad is None
    assert model.roi_heads.box_head.stage[0].conv1.weight.grad is not None
    model.eval()
    with torch.no_grad():
        assert len(model(batch()[0])) == 2


def test_pair_scores_equal_a_softmax():
    from excite.detect.c4 import PairRPNHead

    head = PairRPNHead(4, 2, channels=8)
    x = torch.randn(1, 4, 3, 3)
    pair = head.scores(torch.relu(head.conv(x))).reshape(1, 2, 2, 3, 3)
    logits, boxes = head([x])
    torch.testing.assert_close(logits[0].sigmoid(), pair.softmax(2)[:, :, 1])
    assert boxes[0].shape == (1, 8, 3, 3)


def test_the_card_rebuilds_the_detector():
    names = ["a", "b"]
    model = create_detector("faster_rcnn", "eca_resnet20", 3, neck_attention="eca", class_names=names, **TINY)
    again = from_card(model.excite_card)
    again.load_state_dict(model.state_dict())
    assert again.excite_card == model.excite_card
    assert count_trainable(again) == count_trainable(model)


def test_a_checkpoint_goes_into_the_backbone_with_a_report(tmp_path):
    from excite.models import create_model

    source = create_model("eca_resnet20", num_classes=7, stem="imagenet", width=8)
    torch.save(source.state_dict(), tmp_path / "classifier.pth")
    model = create_detector("faster_rcnn", "eca_resnet20", 3, checkpoint=tmp_path / "classifier.pth", **TINY)
    own = model.backbone.body.net.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(own[key], value), key
    assert "fc" in str(model.transfer_report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "yolo"}, "unknown detector 'yolo'"),
        ({"kind": "faster_rcn"}, "did you mean 'faster_rcnn'"),
        ({"backbone": "eca_resnet21"}, "unknown model"),
        ({"neck": "pan"}, "unknown neck 'pan'"),
        ({"num_classes": 1}, "counts the background"),
        ({"kind": "mask_rcnn", "neck": "c4"}, "needs neck='fpn'"),
        ({"backbone": "emca_eca_resnet18", "neck": "c4"}, "use neck='fpn'"),
        ({"backbone": "resnet20", "neck": "c4"}, "four stages"),
        ({"neck": "c4", "neck_attention": "eca"}, "no pyramid"),
        ({"neck_attention": "emca_eca"}, "by itself"),
        ({"neck_attention": "ecaa"}, "did you mean"),
        ({"neck_attention_options": {"kernel_size": 3}}, "without neck_attention"),
        ({"frozen_stages": 7}, "has stages 0"),
        ({"frozen_stages": -2}, "has stages 0"),
        ({"anchor_sizes": [8, 16]}, "2 sizes"),
        ({"box_score_thres": 0.1}, "box_score_thresh"),
        ({"kernel_sizes": 3}, "kernel_size"),
        ({"class_names": ["a"]}, "1 class names"),
        ({"p6_from": "c4"}, "unknown p6_from"),
        ({"backbone": "torchvision/vgg11"}, "layer1..layer4"),
        ({"backbone": "timm/resnet999"}, "unknown timm model"),
    ],
)
def test_bad_input(change, message):
    arguments = {"kind": "faster_rcnn", "backbone": "eca_resnet18", "num_classes": 3, **change}
    with torch.device("meta"), pytest.raises(UsageError) as caught:
        create_detector(**arguments)
    assert message in str(caught.value)


def test_anchor_sizes_may_be_text_as_command_lines_write_lists():
    detector = create_detector("retinanet", "resnet20", 3, anchor_sizes="8,16,32,64,128", anchor_ratios="0.5,1")
    assert card_of(detector).options["anchor_sizes"] == [8, 16, 32, 64, 128]
    assert card_of(detector).options["anchor_ratios"] == [0.5, 1.0]
    for wrong in ("8,a", "8,,16", [None]):
        with pytest.raises(UsageError, match="not a list of numbers"):
            create_detector("retinanet", "resnet20", 3, anchor_sizes=wrong)
