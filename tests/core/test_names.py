"""Names, options and their errors."""

import pytest
import torch

import excite
from excite.backbones.names import ALIASES, all_names, split_name
from excite.errors import ExciteError, UsageError


def build(name: str, **options: object) -> torch.nn.Module:
    with torch.device("meta"):
        return excite.create_model(name, **options)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_names_are_unique_and_split_back() -> None:
    names = all_names()
    assert len(names) == len(set(names))
    for name in names:
        method, backbone = split_name(name)
        assert ALIASES.get(name, name) == (backbone if method == "none" else f"{method}_{backbone}")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11689512),
        ("resnet34", 21797672),
        ("resnet50", 25557032),
        ("resnet101", 44549160),
        ("resnet152", 60192808),
        ("mobilenet_v2", 3504872),
        ("se_resnet18", 11776552),
        ("se_resnet50", 28071976),
        ("eca_mobilenet_v2", 3504903),
    ],
)
def test_parameter_counts_of_the_papers(name: str, count: int) -> None:
    assert parameters(build(name)) == count


def test_released_kernel_sizes_have_80_parameters() -> None:
    model = build("eca_resnet50", kernel_size="3,5,5,7")
    assert parameters(model) - 25557032 == 80
    assert parameters(build("eca_resnet50", kernel_size=(3, 5, 5, 7))) == parameters(model)
    assert parameters(build("eca_resnet50")) - 25557032 == 86  # the adaptive formula: 5,5,5,7
    # MobileNetV2: one number in each of the ten blocks of less than 96 channels, three in each of the other seven.
    assert parameters(build("eca_mobilenet_v2")) - parameters(build("mobilenet_v2")) == 10 + 7 * 3


@pytest.mark.parametrize(("placement", "sites"), [("all", 16), ("first", 4), ("last", 4)])
def test_placement(placement: str, sites: int) -> None:
    model = build("se_var2_resnet50", placement=placement)
    assert sum(1 for name, _ in model.named_parameters() if ".attention." in name) == sites


def test_placement_first_and_last_are_different_blocks() -> None:
    keys = [k for k, _ in build("se_var2_resnet34", placement="last").named_parameters() if "attention" in k]
    assert [k.rsplit(".attention", 1)[0] for k in keys] == ["layer1.2", "layer2.3", "layer3.5", "layer4.2"]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18_cifar", "resnet20", "mobilenet_v2", "mobilenet_v2_cifar"])
@pytest.mark.parametrize("method", ["none", "se", "eca", "se_var1", "se_var2", "se_var3"])
def test_every_gate_on_every_backbone_runs_and_trains(backbone: str, method: str) -> None:
    name = backbone if method == "none" else f"{method}_{backbone}"
    model = excite.create_model(name, num_classes=5, in_channels=1)
    out = model(torch.randn(2, 1, 32, 32))
    assert out.shape == (2, 5)
    out.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("eca_resnet5", {}, "did you mean"),
        ("ecaa_resnet50", {}, "eca_resnet50"),
        ("eca_resnet50", {"kernel_sise": 3}, "kernel_size"),
        ("eca_resnet50", {"kernel_size": 4}, "odd"),
        ("eca_resnet50", {"kernel_size": "3,5,7"}, "4 stages"),
        ("eca_resnet50", {"kernel_size": "big"}, "adaptive"),
        ("resnet50", {"stem": "cifr"}, "cifar"),
        ("eca_resnet50", {"placement": "middle"}, "placement"),
        ("timm/resnet5", {}, "resnet5"),
        ("torchvision/resnet5", {}, "resnet50"),
        ("nowhere.py:net", {}, "nowhere.py"),
        ("resnet50", {"num_classes": -1}, "at least 0"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, **options)


def test_model_from_a_file(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from torch import nn\ndef net(num_classes=3, wide=4):\n    return nn.Linear(wide, num_classes)\n")
    assert excite.create_model(f"{file}:net", num_classes=7, wide=9).weight.shape == (7, 9)
    with pytest.raises(UsageError, match="net"):
        excite.create_model(f"{file}:nett")
    file.write_text("1/0")
    with pytest.raises(ExciteError, match="ZeroDivisionError"):
        excite.create_model(f"{file}:net")


def test_wrong_attention_arguments() -> None:
    with pytest.raises(UsageError, match="did you mean"):
        excite.create_attention("ecca", 8)
    with pytest.raises(UsageError, match="reduction"):
        excite.create_attention("se", 8, reducton=4)
    with pytest.raises(UsageError, match="positive"):
        excite.create_attention("se", 0)
    with pytest.raises(UsageError, match="expected \\[n 8"):
        excite.create_attention("se", 8)(torch.randn(2, 4, 3, 3))


def test_initial_weights_are_deterministic_and_follow_he() -> None:
    torch.manual_seed(0)
    first = excite.create_model("eca_resnet20").state_dict()
    torch.manual_seed(0)
    second = excite.create_model("eca_resnet20").state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    std = float(first["layer3.1.conv2.weight"].std())
    assert abs(std - (2 / (64 * 9)) ** 0.5) < 0.002


@pytest.mark.parametrize(("c", "expected"), [(16, 3), (64, 3), (128, 5), (256, 5), (1024, 5), (2048, 7), (4, 1)])
def test_adaptive_kernel_size(c: int, expected: int) -> None:
    from excite.methods.ecanet import adaptive_kernel_size

    assert adaptive_kernel_size(c) == expected


def test_public_names_exist() -> None:
    for name in excite.__all__:
        assert getattr(excite, name) is not None
