"""Files of the installed timm and torchvision, against their own networks."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import excite
from excite.errors import ExciteError


def with_statistics(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and scales that matter (timm starts the last ones from zero)."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model.double().eval()


def check_equal(theirs: nn.Module, name: str, size: int = 64, **options: Any) -> None:
    with_statistics(theirs)
    ours, report = excite.import_checkpoint(theirs.state_dict())
    assert report.model == name
    assert options.items() <= report.options.items(), report.options
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = theirs(x), ours(x)
    assert float((a - b).abs().max()) <= 1e-8 * float(a.abs().max())


@pytest.mark.parametrize(
    ("timm_name", "arguments", "name", "options"),
    [
        ("seresnet50", {}, "se_resnet50", {"bias": True}),
        ("ecaresnet50d", {}, "eca_resnet50", {"stem": "deep", "avg_down": True, "kernel_size": (5, 5, 5, 7)}),
        ("resnet50", {"block_args": {"attn_layer": "cbam"}}, "cbam_resnet50", {"mlp_bias": False, "max_first": False}),
        ("resnet18", {"block_args": {"attn_layer": "se"}}, "se_resnet18", {"bias": True, "divisor": 8}),
        ("resnet18d", {}, "resnet18", {"stem": "deep", "avg_down": True}),
        pytest.param("resnet26", {}, "resnet50", {"blocks_per_stage": (2, 2, 2, 2)}, marks=pytest.mark.slow),
        ("ecaresnetlight", {"num_classes": 5}, "eca_resnet50", {"blocks_per_stage": (1, 1, 11, 3)}),
        pytest.param(
            "resnet34",
            {"block_args": {"attn_layer": "eca"}},
            "eca_resnet34",
            {"kernel_size": (3, 5, 5, 5)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_timm(timm_name: str, arguments: dict, name: str, options: dict) -> None:
    check_equal(timm.create_model(timm_name, **arguments), name, **options)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvision(name: str) -> None:
    check_equal(torchvision.models.get_model(name, num_classes=7), name)


@pytest.mark.parametrize("width", [0.35, 1.4])
def test_torchvision_mobilenet_widths(width: float) -> None:
    check_equal(torchvision.models.mobilenet_v2(width_mult=width), "mobilenet_v2", 32)


@pytest.mark.parametrize(
    ("library", "name", "says"),
    [
        (torchvision.models.get_model, "resnext50_32x4d", "grouped"),
        (torchvision.models.get_model, "wide_resnet50_2", "none of those built here"),
        (timm.create_model, "seresnext50_32x4d", "grouped"),
        (torchvision.models.get_model, "alexnet", "no known family"),
        (timm.create_model, "mobilenetv2_100", "no known family"),
    ],
)
def test_relatives_are_refused_with_the_reason(library: Any, name: str, says: str) -> None:
    with torch.device("meta"):
        state = library(name).state_dict()
        with pytest.raises(ExciteError, match=says):
            excite.import_checkpoint(state)
