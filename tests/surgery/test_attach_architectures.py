"""attach on the families of torchvision and timm: sites, weights, gradients, checkpoints, detach."""

import copy

import pytest
import torch
from attach_hosts import MORE, TIMM, TORCHVISION, Vgg, build, enliven
from torch import nn

import excite
import excite.ops

HOSTS = {f"torchvision/{n}": s for n, s in TORCHVISION.items()} | {f"timm/{n}": s for n, s in TIMM.items()}
# Networks without a residual branch, and what is attached there instead.
PLAIN = {"torchvision/squeezenet1_1", "torchvision/densenet121", "torchvision/googlenet", "vgg"}
SITES = {
    "torchvision/resnet18": (8, "layer1.0.bn2"), "torchvision/resnext50_32x4d": (16, "layer1.0.bn3"),
    "torchvision/wide_resnet50_2": (16, "layer1.0.bn3"), "torchvision/mobilenet_v2": (10, "features.3.conv.3"),
    "torchvision/convnext_tiny": (18, "features.1.0.stochastic_depth"),
    "torchvision/mnasnet0_5": (10, "layers.8.1.layers.7"),
    "torchvision/shufflenet_v2_x0_5": (16, "stage2.0.branch2.7"),
    "torchvision/efficientnet_b0": (9, "features.2.1.block.3.1"),
    "torchvision/regnet_y_400mf": (16, "trunk_output.block1.block1-0.f.c.1"),
    "torchvision/mobilenet_v3_small": (6, "features.3.block.2.1"),
    "timm/resnet26d": (8, "layer1.0.bn3"), "timm/regnety_002": (13, "s1.b1.conv3.bn"),
    "timm/convnext_atto": (12, "stages.0.blocks.0.drop_path"), "timm/mobilenetv2_035": (10, "blocks.1.1.bn3"),
    "timm/seresnet18": (8, "layer1.0.se"), "timm/res2net50_26w_4s": (16, "layer1.0.bn3"),
}  # fmt: skip


def check(model: nn.Module, name: str, size: int) -> None:
    sites = "stage-ends" if name in PLAIN else "residual"
    x = torch.randn(2, 3, size, size)
    for p in model.parameters():  # residual branches that start at zero would hide what stands in them
        if not p.any():
            torch.nn.init.normal_(p, std=0.5)
    before = model(x)
    host = copy.deepcopy(model.state_dict())

    report = excite.attach(model, "gct", sites=sites)
    with excite.ops.use("reference"):
        assert torch.equal(model(x), before), "GCT starts as the identity"
    assert report.kept_tensors == len(host)
    assert not report.removed
    excite.detach(model)

    report = excite.attach(model, "eca", sites=sites)
    if name in SITES:
        assert (len(report.sites), report.sites[0].path) == SITES[name]
    assert report.parameters_added == sum(p.numel() for k, p in model.named_parameters() if k not in host)
    attended = model(x)
    assert not torch.allclose(attended, before), "ECA is not the identity"
    attended.square().mean().backward()
    fresh = {k: p for k, p in model.named_parameters() if k not in host}
    assert len(fresh) == len(report.sites)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fresh.values())

    with torch.no_grad():
        for key, value in model.named_parameters():
            if key in host:
                value.zero_()
    result = model.load_state_dict(host)  # strict
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(model(x), attended), "the host's checkpoint restores the host and leaves attention alone"

    assert excite.detach(model) is model
    assert list(model.state_dict()) == list(host)
    assert torch.equal(model(x), before)
    model.load_state_dict(host)


# Relatives of others that are smaller, or stand for them.
RELATIVES = {
    "torchvision/wide_resnet50_2", "torchvision/resnext50_32x4d", "torchvision/densenet121", "torchvision/googlenet",
    "torchvision/convnext_tiny", "torchvision/regnet_x_400mf", "torchvision/mobilenet_v3_small",
    "torchvision/mnasnet0_5", "timm/resnet10t", "timm/mobilenetv2_035", "timm/convnextv2_atto", "timm/tinynet_e",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in RELATIVES else ()) for n in HOSTS])
def test_architecture(name: str) -> None:
    check(build(name), name, HOSTS[name])


def test_vgg() -> None:
    check(enliven(Vgg()).eval(), "vgg", 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_more_architectures(name: str) -> None:
    plain = {"rexnet_100", "densenet121", "lcnet_035", "repvgg_a0"}
    model = build(f"timm/{name}")
    check(model, "vgg" if name in plain else name, MORE[name])


def test_families_are_many() -> None:
    assert len(HOSTS) >= 25
    assert set(HOSTS) > RELATIVES
