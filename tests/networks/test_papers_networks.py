"""EMANet, EPSANet and the rivals of EMANet's CIFAR-10 table: counts as published, names, stems."""

import pytest
import torch
from torch import nn

import excite
from excite.backbones.names import ALIASES, list_models
from excite.backbones.regnet import SHAPES
from excite.backbones.resnet_small import PadShortcut


def build(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return excite.create_model(name, **options)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "published", "options"),
    [
        ("resnet50_cifar", 22.43, {}),
        ("cbam_resnet50_cifar", 24.83, {"mlp_bias": False, "spatial_norm": False, "max_first": False}),
        ("sa_resnet50_cifar", 22.43, {}),
        ("se_resnet50_cifar", 24.83, {}),
        ("fca_resnet50_cifar", 24.83, {}),
        ("eca_resnet50_cifar", 22.43, {"kernel_size": "3,5,5,7"}),
        ("epsanet50_cifar", 19.57, {}),
        ("emanet50_cifar", 20.21, {}),
    ],
)
def test_table_of_emanet(name: str, published: float, options: dict) -> None:
    # EMANet's own row says 20.20 and EPSANet's 19.58; FACTS of both: 20.209 counts SoftBAN too, 19.575 rounds down.
    assert round(count(build(name, num_classes=10, **options)) / 2**20, 2) == published


@pytest.mark.parametrize(("name", "published"), [("epsanet50", 22561715), ("emanet50_cifar", 21191061 + 990 * 2049)])
def test_exact_counts(name: str, published: int) -> None:
    assert count(build(name)) == published


def test_papers_names() -> None:
    assert list_models("emanet*") == ["emanet50", "emanet50_cifar", "emanet101", "emanet101_cifar"]
    assert list_models("epsanet*") == ["epsanet50", "epsanet50_cifar", "epsanet101", "epsanet101_cifar"]
    assert ALIASES["emanet101"] == "ma_resnet101"
    assert build("epsanet50").state_dict().keys() == build("psa_resnet50").state_dict().keys()


@pytest.mark.parametrize("name", ["epsanet50", "epsanet101_cifar", "emanet50_cifar"])
def test_shapes(name: str) -> None:
    model = build(name, num_classes=10)
    maps = model.forward_features(torch.empty(2, 3, 64, 64, device="meta"))
    side = 64 if name.endswith("_cifar") else 16
    assert [tuple(m.shape) for m in maps] == [(2, 256 << i, side >> i, side >> i) for i in range(4)]
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("name", ["epsanet50_cifar", "emanet50_cifar"])
def test_every_parameter_has_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = excite.create_model(name, num_classes=10)
    model(torch.randn(2, 3, 16, 16)).square().mean().backward()
    assert not [k for k, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    ("name", "side"), [("regnetx_200mf_cifar", 8), ("regnety_400mf_cifar", 8), ("eca_regnetx_400mf_cifar", 8)]
)
def test_regnets(name: str, side: int) -> None:
    torch.manual_seed(0)
    model = excite.create_model(name, num_classes=10)
    maps = model.forward_features(torch.randn(2, 3, 32, 32))
    assert [m.shape[1] for m in maps] == list(model.feature_channels)
    assert maps[-1].shape[-1] == side
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert not [k for k, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", SHAPES)
def test_exact_counts_of_regnets(name: str) -> None:
    """The inner SE of a block has a quarter of the block's inputs, not of its outputs."""
    shape = SHAPES[name]
    inputs, total = 64, 64 * 3 * 9 + 2 * 64
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        for i in range(depth):
            hidden = round(inputs * shape.se_ratio)
            total += inputs * width + width * shape.group_width * 9 + width * width + 3 * 2 * width
            total += (2 * width * hidden + hidden + width) if hidden else 0
            total += (inputs * width + 2 * width) if inputs != width or (i == 0 and stage > 1) else 0
            inputs = width
    assert count(build(name, num_classes=10)) == total + inputs * 10 + 10


def test_deep_stem_and_averaging_projections() -> None:
    model = build("eca_resnet50", stem="deep", stem_widths=(24, 32), avg_down=True)
    keys = set(model.state_dict())
    assert {"conv1.0.weight", "conv1.3.weight", "conv1.6.weight", "layer1.0.downsample.1.weight"} <= keys
    assert model.conv1[3].weight.shape == (32, 24, 3, 3)
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1000)


def test_padded_shortcuts() -> None:
    """Every second position, and as many new channels before the old ones as behind them."""
    x = torch.randn(2, 6, 5, 4)
    padded = PadShortcut(4, 2)(x)
    assert padded.shape == (2, 10, 3, 2)
    assert torch.equal(padded[:, 2:8], x[:, :, ::2, ::2])
    assert not padded[:, :2].any()
    assert not padded[:, 8:].any()
