"""Grad-CAM: against its definition, on in-place networks, with errors that name the culprit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from excite.errors import ExciteError, UsageError
from excite.explain.cam import find_target, grad_cam, out_of_place
from excite.models import create_model


def image(size: int = 32) -> torch.Tensor:
    return torch.randn(3, size, size, generator=torch.Generator().manual_seed(1))


class Tiny(nn.Module):
    """A network with in-place activations everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.act(self.bn(self.conv(x)))).flatten(1))


def by_definition(model: Tiny, x: torch.Tensor, index: int) -> torch.Tensor:
    """Equations 1 and 2 of the paper: channels weighted by the mean gradient, rectified."""
    maps = F.relu(model.bn(model.conv(x[None]))).detach().requires_grad_(True)
    model.fc(model.pool(maps).flatten(1))[0, index].backward()
    heat = F.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1))[0].detach()
    return heat / heat.max() if heat.max() > 0 else heat


def test_equals_the_definition() -> None:
    torch.manual_seed(0)
    model = Tiny().eval()
    for result in grad_cam(model, image(16), [0, 1, 2, 3]):
        model.zero_grad()
        torch.testing.assert_close(result.heat, by_definition(model, image(16), result.index), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["bn", "conv", None])
def test_layers_before_in_place_activations_work(layer: str | None) -> None:
    torch.manual_seed(0)
    model = Tiny().eval()
    results = grad_cam(model, image(16), 2, layer)
    assert len(results) == 2
    assert results[0].probability >= results[1].probability
    assert model.act.inplace


def test_model_is_left_as_it_was() -> None:
    model = create_model("eca_resnet20", num_classes=10).train()
    for p in model.parameters():
        p.requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    grad_cam(model, image(), 1)
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_in_place_is_restored_after_an_exception() -> None:
    model = Tiny()

    def fail() -> None:
        with out_of_place(model):
            assert not model.act.inplace
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.act.inplace


@pytest.mark.parametrize("name", ["se_resnet20", "emca_eca_resnet20", "eca_mobilenet_v2_cifar"])
def test_our_networks_have_a_target_with_positions(name: str) -> None:
    model = create_model(name, num_classes=10).eval()
    target = find_target(model, image()[None])
    result = grad_cam(model, image(), 1)[0]
    assert result.heat.shape == (32, 32)
    assert target.name
    assert 0 <= float(result.heat.min()) <= float(result.heat.max()) <= 1


def test_attached_foreign_network() -> None:
    model = create_model("timm/resnet10t", num_classes=4, attach="se").eval()
    assert len(grad_cam(model, image(64), 4)) == 4


def test_unknown_layer_names_near_ones() -> None:
    with pytest.raises(UsageError, match="conv"):
        grad_cam(Tiny(), image(16), 1, "convv")


def test_layer_without_a_map() -> None:
    with pytest.raises(UsageError, match="'fc'"):
        grad_cam(Tiny(), image(16), 1, "fc")


def test_network_without_positions() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    with pytest.raises(ExciteError, match="no map"):
        grad_cam(model, image(4), 1)


@pytest.mark.parametrize("classes", [0, [4], [-1]])
def test_classes_that_do_not_exist(classes: int | list[int]) -> None:
    with pytest.raises(UsageError):
        grad_cam(Tiny(), image(16), classes)
