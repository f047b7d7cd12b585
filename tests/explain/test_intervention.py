"""Pulled channel weights: at one the stage has no attention, at zero nothing changes, on every kind of attention."""

import copy

import pytest
import torch
from torch import nn

import excite
from excite.errors import UsageError
from excite.explain import find_sites, pull, pulled, recorded

NETWORKS = [
    "se_resnet20", "eca_resnet20", "srm_resnet20", "gct_resnet20", "cbam_resnet20", "coord_resnet20", "gc_resnet20",
    "simam_resnet20", "emca_eca_resnet20", "bam_resnet20",
]  # fmt: skip
RELEASED = {"form": "released"}


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = excite.create_model(name, num_classes=5, **options).eval()
    for parameter in model.parameters():  # none that starts as the identity, or as zero
        nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else nn.init.uniform_(parameter, 0.3, 0.9)
    return model


def without(model: nn.Module, stages: set[int]) -> nn.Module:
    """The network without the attention modules of some stages."""
    bare = copy.deepcopy(model)
    for site in find_sites(bare):
        if site.stage in stages:
            parent, _, name = site.name.rpartition(".")
            owner = bare.get_submodule(parent)
            setattr(owner, name, None if hasattr(owner, "last_norm") else nn.Identity())
    return bare


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize(("name", "options"), [*((n, {}) for n in NETWORKS), ("emca_eca_resnet20", RELEASED)])
def test_one_is_off_and_zero_is_nothing(name: str, options: dict, images: torch.Tensor) -> None:
    model = build(name, **options)
    with torch.set_grad_enabled(name in ("eca_resnet20", "emca_eca_resnet20")):  # other kernels run then
        before = model(images)
        stages = sorted({site.stage for site in find_sites(model)})
        with pulled(model, dict.fromkeys(stages, 0.0)):
            assert torch.equal(model(images), before)
        for off in ({stages[0]}, set(stages)):
            with pulled(model, dict.fromkeys(off, 1.0)):
                changed = model(images)
            expected = without(model, off)(images)
            torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
            assert not torch.allclose(changed, before, rtol=1e-3)
        assert torch.equal(model(images), before)  # nothing is left behind


@pytest.mark.parametrize(("name", "options"), [*((n, {}) for n in NETWORKS[:4]), ("emca_eca_resnet20", RELEASED)])
def test_towards_another_image(name: str, options: dict, images: torch.Tensor) -> None:
    """With the weights of the other image in stage 1, the first site of stage 1 is what `x * other` gives."""
    model = build(name, **options)
    mine, other = images[:1], images[1:]
    with torch.no_grad():
        theirs = recorded(model, lambda: model(other))
        before = model(mine)
        with pulled(model, {1: 1.0}, theirs):
            moved = model(mine)
        with pulled(model, {1: 1.0}, recorded(model, lambda: model(mine))):
            same = model(mine)
    torch.testing.assert_close(same, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert not torch.allclose(moved, before, rtol=1e-4)


def test_half_way_lies_between() -> None:
    weights, other = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.6, 0.0]])
    torch.testing.assert_close(pull(weights, 0.5), torch.tensor([[0.6, 0.9]]))
    torch.testing.assert_close(pull(weights, 0.5, other), torch.tensor([[0.4, 0.4]]))
    assert torch.equal(pull(weights, 1.0, other), other)
    assert torch.equal(pull(weights, 0.0, other), weights)


def test_attached_and_foreign_attention(images: torch.Tensor) -> None:
    import torchvision

    foreign = torchvision.models.mobilenet_v3_small(num_classes=5).eval()
    own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    excite.attach(own, "eca", sites="all-blocks")
    for model in (foreign, own):
        stages = {site.stage for site in find_sites(model)}
        with torch.no_grad(), pulled(model, dict.fromkeys(stages, 1.0)):
            off = model(images)
            bare = copy.deepcopy(model)
        if model is own:
            excite.detach(bare)
        else:
            for site in find_sites(bare):
                parent, _, name = site.name.rpartition(".")
                setattr(bare.get_submodule(parent), name, nn.Identity())
        with torch.no_grad():
            torch.testing.assert_close(off, bare(images))


def test_hooks_go_also_after_an_error(images: torch.Tensor) -> None:
    for options in ({}, RELEASED):
        model = build("emca_eca_resnet20", **options)
        with pytest.raises(RuntimeError), pulled(model, {1: 0.5, 2: 1.0}):
            raise RuntimeError
        assert all(not m._forward_hooks and "_gated" not in vars(m) for m in model.modules())


@pytest.mark.parametrize(
    ("name", "amounts", "towards", "message"),
    [
        ("eca_resnet20", {4: 1.0}, None, "unknown stage with attention '4'; known: 1, 2, 3"),
        ("eca_resnet20", {1: 1.5}, None, "stage 1 cannot be pulled by 1.5; expected 0"),
        ("eca_resnet20", {1: float("nan")}, None, "stage 1 cannot be pulled by nan"),
        ("eca_resnet20", {1: 1.0}, {}, "no channel weights for layer1.0.attention"),
        ("resnet20", {1: 1.0}, None, "unknown stage"),
        ("psa_resnet50", {1: 1.0}, None, "takes the place of a convolution, so stage 1 cannot do without it"),
    ],
)
def test_what_cannot_be_pulled(name: str, amounts: dict, towards: dict | None, message: str) -> None:
    model = excite.create_model(name, num_classes=5)
    with pytest.raises(UsageError, match=message), pulled(model, amounts, towards):
        pass
    assert not any(m._forward_hooks for m in model.modules())
