"""The correlation along channels against the convolution it stands for."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from excite.ops import correlate as module
from excite.ops.correlate import Correlate, correlate


def conv_of(k: int, dtype: torch.dtype = torch.float64) -> nn.Conv1d:
    torch.manual_seed(k)
    return nn.Conv1d(1, 1, k, padding=k // 2, bias=False).to(dtype)


@pytest.mark.parametrize("k", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(2, 7), (16, 64), (3, 4)])
def test_equals_the_convolution_with_its_gradients(k: int, shape: tuple[int, int]) -> None:
    conv, s = conv_of(k), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(shape, dtype=torch.float64)
    found = []
    for made in (correlate(s, conv), conv(s[:, None])[:, 0]):
        grads = torch.autograd.grad(made, (s, conv.weight), cotangent)
        found.append([made.detach(), *grads])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_single_rows_go_to_torch_where_there_is_no_c(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, s = conv_of(3, torch.float32), torch.randn(1, 16)
    monkeypatch.setattr(module, "native", lambda: None)
    monkeypatch.setattr(module, "Correlate", None)  # its use would raise
    torch.testing.assert_close(correlate(s, conv), conv(s[:, None])[:, 0])


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_form_without_c_is_the_same(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "native", lambda: None)
    test_equals_the_convolution_with_its_gradients(k, (5, 12))


def test_second_derivatives() -> None:
    s = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(1, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Correlate.apply, (s, kernel))
    assert torch.autograd.gradgradcheck(Correlate.apply, (s, kernel))


def test_gradient_of_one_side_only() -> None:
    conv = conv_of(3)
    kernel = conv.weight.detach().clone()
    s = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    (one,) = torch.autograd.grad(Correlate.apply(s, kernel).square().sum(), s)
    (two,) = torch.autograd.grad(conv(s[:, None]).square().sum(), s)
    torch.testing.assert_close(one, two)
    kernel.requires_grad_()
    (one,) = torch.autograd.grad(Correlate.apply(s.detach(), kernel).square().sum(), kernel)
    (two,) = torch.autograd.grad(conv(s[:, None]).square().sum(), conv.weight)
    torch.testing.assert_close(one, two)


def test_steps_aside_where_the_convolution_must_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, s = conv_of(3, torch.float32), torch.randn(4, 16)
    monkeypatch.setattr(module, "Correlate", None)  # its use would raise
    with pytest.raises(AttributeError):
        correlate(s, conv)
    correlate(s.to("meta"), conv.to("meta"))
    conv = conv_of(3, torch.float32)
    with FlopCounterMode(display=False) as counter:
        correlate(s, conv)
    assert counter.get_total_flops() == 2 * 3 * s.numel()
    with torch.autocast("cpu", torch.bfloat16):
        assert correlate(s, conv).dtype == torch.bfloat16
    torch.export.export(Wrapped(conv), (s,))
    seen = []
    handle = conv.register_forward_hook(lambda *_: seen.append(1))
    correlate(s, conv)
    handle.remove()
    assert seen == [1]


class Wrapped(nn.Module):
    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        return correlate(s, self.conv)
