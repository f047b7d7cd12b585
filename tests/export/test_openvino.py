"""What OpenVINO makes of exported attention, with weights that matter: gates at rest hide mistakes."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import excite
from excite.errors import ExciteError
from excite.export.convert import to_openvino
from excite.registry import get_method

openvino = pytest.importorskip("openvino")

CHANNELS = 16
QUICK = ("eca", "srm", "gct", "scsa")
REFUSED = {"ceca": "cannot read Pad of"}


@pytest.fixture(autouse=True)
def _reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may be reported to the makers of OpenVINO."""
    main = pytest.importorskip("openvino_telemetry.main")
    reports: list[str] = []
    for name in ("start_session", "send_event", "send_error", "send_stack_trace"):
        monkeypatch.setattr(main.Telemetry, name, lambda *_, name=name, **__: reports.append(name))
    yield
    assert not reports


def case(method: str) -> object:
    return pytest.param(method, marks=() if method in QUICK else pytest.mark.slow)


class Block(nn.Module):
    """A convolution, a norm and a method, with random weights and statistics."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, CHANNELS, 1), nn.BatchNorm2d(CHANNELS)
        self.attention = get_method(method).build(CHANNELS)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.5, generator=generator)
            for buffer in self.buffers():
                if buffer.is_floating_point():
                    buffer.uniform_(0.5, 1.5, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        return torch.relu(y + self.attention(y))


@pytest.mark.parametrize("method", map(case, excite.list_methods()))
def test_every_image_of_a_batch_gets_its_own_weights(method: str) -> None:
    network, x = Block(method).eval(), torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    if method in REFUSED:
        with pytest.raises(ExciteError, match=f"{REFUSED[method]}.*onnx"):
            to_openvino(network, x[:1], dynamic=True)
        return
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.Core().compile_model(to_openvino(network, x[:1], dynamic=True), "CPU", settings)
    with torch.no_grad():
        wanted = network(x)
    for n in (1, 4):
        torch.testing.assert_close(torch.from_numpy(run(x[:n].numpy())[0]), wanted[:n], rtol=1e-4, atol=1e-4)
