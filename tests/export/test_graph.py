"""What is rewritten before a network is exported."""

from pathlib import Path

import pytest
import torch
from torch import nn

import excite
from excite.backbones.mobilenetv2 import InvertedResidual
from excite.export import FORMATS, export_model
from excite.export.graph import capture, rewrite
from excite.models import NetworkSpec


def live(name: str, **options: object) -> nn.Module:
    """A network whose batch norms are not the identity."""
    torch.manual_seed(0)
    model = excite.create_model(name, num_classes=10, **options)
    enliven(model)
    return model.double().eval()


def enliven(model: nn.Module) -> None:
    """Draw the numbers of all batch norms: fresh ones hide what becomes of their means and shifts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)


class Tiny(nn.Module):
    """One bottleneck: everything that the rewrites look for, at a size that tests like."""

    def __init__(self, method: str) -> None:
        super().__init__()
        from excite.backbones.blocks import Bottleneck

        torch.manual_seed(0)
        self.block = Bottleneck(32, 8, 1, None, excite.create_attention(method, 32))
        enliven(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


@pytest.mark.parametrize(
    ("method", "moved", "products", "composed"),
    [("eca", 1, 0, 1), ("se", 1, 2, 1), ("se_var3", 1, 1, 1), ("ceca", 1, 0, 0), ("srm", 0, 0, 0)],
)
def test_rewrites_of_a_bottleneck(method: str, moved: int, products: int, composed: int) -> None:
    model = Tiny(method).double().eval()
    x = torch.randn(2, 32, 6, 6, dtype=torch.float64)
    graph = capture(model, x, dynamic=True)
    done = rewrite(graph)
    assert (done.norms_folded, done.squeezes_moved, done.products_as_convolutions) == (3, moved, products)
    assert done.steps_composed == composed
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-10, atol=1e-12)
    assert not any(
        n.target is torch.ops.aten.batch_norm.default and n.args[0].target is torch.ops.aten.conv2d.default
        for n in graph.graph.nodes
    )


def test_products_of_several_descriptors_at_once_stay_products() -> None:
    model = Tiny("cbam").double().eval()
    x = torch.randn(2, 32, 6, 6, dtype=torch.float64)
    graph = capture(model, x, dynamic=True)
    done = rewrite(graph)
    assert (done.norms_folded, done.squeezes_moved, done.products_as_convolutions) == (4, 0, 0)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-10, atol=1e-12)


def test_squeezes_can_stay() -> None:
    graph = capture(Tiny("se").eval(), torch.randn(2, 32, 6, 6), dynamic=False)
    done = rewrite(graph, move_squeezes=False)
    assert done.norms_folded == 3
    assert done.squeezes_moved == done.products_as_convolutions == 0


def test_a_3x3_last_convolution_keeps_its_squeeze() -> None:
    model = live("eca_resnet20")
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    graph = capture(model, x, dynamic=False)
    assert rewrite(graph).squeezes_moved == 0
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-9, atol=1e-11)


def test_a_projection_keeps_its_squeeze_behind_it() -> None:
    block = InvertedResidual(8, 16, 1, 6, excite.create_attention("eca", 16)).double().eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    graph = capture(block, x, dynamic=True)
    assert rewrite(graph).squeezes_moved == 0
    with torch.no_grad():
        torch.testing.assert_close(graph(x), block(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("format", "moved"), [("onnx", 0), ("torch-export", 0), ("openvino", 1)])
def test_squeezes_move_for_openvino_unless_said_otherwise(format: str, moved: int, tmp_path: Path) -> None:
    class Network(Tiny):
        def __init__(self) -> None:
            super().__init__("eca")
            self.stem = nn.Conv2d(3, 32, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.stem(x)).mean((2, 3))

    torch.manual_seed(0)
    model, card = Network(), NetworkSpec(name="tiny", num_classes=32)
    for given, expected in ((None, moved), (not moved, int(not moved))):
        path = tmp_path / f"{given}{FORMATS[format]}"
        done = export_model(model, card, path, format=format, input_size=8, move_squeezes=given)
        assert done.rewrites.squeezes_moved == expected


def test_folded_weights_are_dropped_from_the_file() -> None:
    graph = capture(Tiny("eca").eval(), torch.randn(2, 32, 6, 6), dynamic=False)
    rewrite(graph)
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    assert {name for name, _ in [*graph.named_parameters(), *graph.named_buffers()]} <= used


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["eca_resnet50", "se_mobilenet_v2", "emca_eca_resnet50", "cbam_resnet18", "timm/ecaresnet26t"]
)
def test_whole_networks(name: str) -> None:
    model = live(name)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    graph = capture(model, x, dynamic=True)
    assert rewrite(graph).norms_folded > 15
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-8, atol=1e-10)
