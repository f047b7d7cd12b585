"""Where the fused tail must step aside, and that whoever watches the parts still sees them."""

import contextlib
import math
from typing import Any

import pytest
import torch
from tails import difference, example, run
from torch import nn
from torch.nn import functional as F

from excite import ops
from excite.attention import ChannelAttention
from excite.errors import UsageError
from excite.ops.tail import plan
from excite.ops.tail import torch as plain
from excite.ops.tail.kernels import Kernels
from excite.squeezes import Mean


class OtherAttention(ChannelAttention):
    """A subclass with another forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def reason(z: Any, norm: nn.Module, attention: nn.Module | None, shortcut: Any) -> str:
    with ops.use("fused"):
        why = ops.why_not(z, norm, attention, shortcut)
    assert why is not None
    return why


def test_other_norms() -> None:
    module, z, r = example("eca", torch.float32)

    class FrozenBatchNorm2d(nn.BatchNorm2d):  # any subclass: it may override anything
        pass

    for norm in (
        nn.SyncBatchNorm(16),
        FrozenBatchNorm2d(16),
        nn.GroupNorm(4, 16),
        nn.InstanceNorm2d(16),
        nn.Identity(),
    ):
        assert type(norm).__name__ in reason(z, norm, module[1], r)


def test_sync_batch_norm_gives_what_its_module_gives() -> None:
    # Without a process group SyncBatchNorm is a batch norm on the CPU in eval mode; in train mode it refuses.
    module, z, r = example("eca", torch.float32)
    sync = nn.SyncBatchNorm(16).eval()
    with ops.use("fused"):
        found = ops.residual_tail(z, sync, module[1], r, F.relu)
    torch.testing.assert_close(found, F.relu(module[1](sync(z)) + r))


def test_other_attention() -> None:
    module, z, r = example("eca", torch.float32)
    other = OtherAttention(module[1].squeeze, module[1].gate, 16)
    assert "OtherAttention" in reason(z, module[0], other, r)
    one, two = (run(m, nn.ModuleList([module[0], other]), z, r, F.relu) for m in ("reference", "auto"))
    assert difference(one, two) == 0
    assert "ReLU" in reason(z, module[0], nn.ReLU(), r)
    assert ops.why_not(z, module[0], nn.Identity(), r) is None


def test_maps_that_do_not_fit() -> None:
    module, z, r = example("eca", torch.float32)
    norm, eca = module
    assert "contiguous" in reason(z[..., ::2], norm, eca, None)
    assert "shortcut" in reason(z, norm, eca, r[:, :, :1])
    assert "shortcut" in reason(z, norm, eca, r.double())
    assert "meta" in reason(z.to("meta"), norm, eca, None)
    assert "shape" in reason(z[:0], norm, eca, None)
    assert "Parameter" in reason(nn.Parameter(z), norm, eca, None)
    assert "fit" in reason(z[:, :8].contiguous(), norm, None, None)
    assert "one value" in reason(z[:1, :, :1, :1].contiguous(), norm, eca, None)


def test_errors_are_those_of_the_modules() -> None:
    module, z, r = example("eca", torch.float32)
    with ops.use("fused"):
        with pytest.raises(ValueError, match="more than 1 value"):
            ops.residual_tail(z[:1, :, :1, :1].contiguous(), module[0], module[1], None, None)
        with pytest.raises(UsageError, match="expected"):
            ops.residual_tail(z, module[0], ChannelAttention(module[1].squeeze, module[1].gate, 8), r, None)


def test_hooks_on_norm_attention_and_squeeze_are_called() -> None:
    module, z, r = example("eca", torch.float32)
    for watched in (module[0], module[1], module[1].squeeze):
        calls: list[Any] = []
        handle = watched.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        assert "hooked" in reason(z, module[0], module[1], r)
        with ops.use("fused"):
            ops.residual_tail(z, module[0], module[1], r, F.relu)
        handle.remove()
        assert calls == [1]
        assert ops.why_not(z, module[0], module[1], r) is None
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert "hooked" in reason(z, module[0], module[1], r)
    finally:
        handle.remove()


def test_a_hook_on_the_gate_sees_the_weights_in_the_fused_form() -> None:
    module, z, r = example("srm", torch.float64)
    seen = []
    module[1].gate.register_forward_hook(lambda _, __, w: seen.append(w.detach().clone()))
    for mode in ("reference", "fused"):
        with ops.use(mode):
            assert ops.why_not(z, module[0], module[1], r) is None
            ops.residual_tail(z, module[0], module[1], r, F.relu)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-10, atol=0)


def test_watched_rectifier_is_called() -> None:
    module, z, r = example("eca", torch.float32)
    act, calls = nn.ReLU(), []
    act.register_forward_hook(lambda *_: calls.append(1))
    assert difference(run("reference", module, z, r, act), run("fused", module, z, r, act)) <= 1e-5
    assert calls


def test_compile_and_export_see_plain_operations() -> None:
    module, z, r = example("eca", torch.float32)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = module

        def forward(self, z: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
            return ops.residual_tail(z, self.parts[0], self.parts[1], r, F.relu)

    with ops.use("fused"):
        block = Block().eval()
        program = torch.export.export(block, (z, r))
        targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert targets
        assert all(name.startswith("aten.") or "getitem" in name for name in targets), targets
        torch.testing.assert_close(program.module()(z, r), block(z, r), rtol=1e-5, atol=1e-5)
        compiled = torch.compile(block, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(z, r), block(z, r), rtol=1e-5, atol=1e-5)


def test_function_transforms_and_forward_mode() -> None:
    module, z, r = example("eca", torch.float64)
    module.eval()

    def tail(z: torch.Tensor) -> torch.Tensor:
        return ops.residual_tail(z, module[0], module[1], r, F.softplus)

    tangent = torch.randn_like(z)
    with ops.use("fused"):
        _, product = torch.func.jvp(tail, (z,), (tangent,))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(z, tangent)
            again = torch.autograd.forward_ad.unpack_dual(tail(dual)).tangent
    step = 1e-6
    with ops.use("reference"):
        expected = (tail(z + step * tangent) - tail(z - step * tangent)) / (2 * step)
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-6)


def test_modes() -> None:
    from excite.ops.mode import mode

    assert mode() == "auto"
    with ops.use("fused"):
        assert mode() == "fused"
        with contextlib.suppress(RuntimeError), ops.use("reference"):
            assert mode() == "reference"
            raise RuntimeError
        assert mode() == "fused"
    ops.use("reference")
    assert mode() == "reference"
    ops.use("auto")
    with pytest.raises(UsageError, match="fused"):
        ops.use("fusde")


def gate_giving(weights: torch.Tensor) -> ChannelAttention:
    class Gate(nn.Module):
        def forward(self, descriptor: torch.Tensor) -> torch.Tensor:
            return weights

    return ChannelAttention(Mean(), Gate(), 16)


@pytest.mark.parametrize("shape", [(1, 16), (4, 1), (16,), (4, 16)])
def test_weights_are_broadcast_either_way(shape: tuple[int, int]) -> None:
    module, z, r = example("none", torch.float64)
    found = []
    for mode in ("reference", "fused"):
        weights = torch.linspace(0, 1, math.prod(shape)).double().reshape(shape).requires_grad_()
        with ops.use(mode):
            out = ops.residual_tail(z, module[0], gate_giving(weights), r, F.relu)
        out.square().sum().backward()
        found.append([out.detach(), weights.grad])
    assert difference(*found) <= 1e-10


@pytest.mark.parametrize("shape", [(2, 16), (4, 8), (4, 16, 1), (8,)])
def test_weights_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    module, z, r = example("none", torch.float64)
    with ops.use("fused"), pytest.raises(UsageError, match="the gate gave weights"):
        ops.residual_tail(z, module[0], gate_giving(torch.ones(shape).double()), r, F.relu)
    with ops.use("fused"), pytest.raises(UsageError, match="on meta"):
        ops.residual_tail(z, module[0], gate_giving(torch.ones(4, 16, device="meta")), r, F.relu)


def test_a_norm_whose_tensors_were_cut() -> None:
    norm = nn.BatchNorm2d(16)
    norm.weight = nn.Parameter(torch.ones(8))
    assert "do not fit" in reason(torch.randn(4, 16, 5, 5), norm, None, None)


LAST = torch.channels_last


@pytest.fixture(params=["native", "torch"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select as with a compiler, and as without."""
    made = Kernels(plain) if request.param == "native" else None
    monkeypatch.setattr(plan, "native", lambda: made)
    return str(request.param)


def test_auto_takes_the_fused_form_where_it_was_measured_to_pay(kind: str) -> None:
    def fused(z: torch.Tensor, part: plan.Part) -> bool:
        return plan.plan(plan.Request(part, z, nn.BatchNorm2d(z.shape[1]))).kernels is not None

    small, large = torch.empty(2, 8, 16, 16), torch.empty(16, 256, 28, 28)
    assert not fused(small, plan.ATTENTION)
    assert fused(large, plan.ATTENTION)
    assert fused(large, plan.PLAIN)
    # Without C a plain tail saves nothing in NHWC, and inference only on larger maps.
    assert fused(large.contiguous(memory_format=LAST), plan.PLAIN) == (kind == "native")
    with ops.use("fused"):
        assert fused(small, plan.ATTENTION)
    with torch.no_grad():
        assert not fused(small, plan.ATTENTION)
        assert fused(large[:4], plan.ATTENTION) == (kind == "native")
