"""The tail with a known gate as one node of autograd: against the tail in parts and against the modules in turn."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tails import difference, example, run
from torch import nn
from torch.nn import functional as F

import excite
from excite import ops
from excite.attention import ChannelAttention
from excite.gates import Bottleneck, LocalConv, StyleNorm
from excite.ops.tail import api, gated
from excite.ops.tail.plan import native
from excite.squeezes import Mean

# In float32 a batch norm over two to four samples (SRM's) cancels nearly all of its gradient: what is left differs
# from float64's by up to 2e-4 in every formulation, the plain modules' too.
LIMITS = {torch.float64: 1e-12, torch.float32: 3e-4, torch.bfloat16: 1.6e-2}
GATES: dict[str, Callable[[int], nn.Module]] = {
    "eca": lambda c: excite.create_attention("eca", c),
    "eca, kernel beyond the channels": lambda c: ChannelAttention(Mean(), LocalConv(2 * c + 3), c),
    "se": lambda c: ChannelAttention(Mean(), Bottleneck(c, 1 + c // 2), c),
    "se, biases": lambda c: ChannelAttention(Mean(), Bottleneck(c, 1 + c // 2, bias=True), c),
    "srm": lambda c: excite.create_attention("srm", c),
}


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the tails that ran as one node (or one call, without gradients)."""
    if native() is None:
        pytest.skip(ops.kernels_on("cpu"))
    count: list[int] = []
    tail = api.gated_tail

    def note(*args: Any) -> Any:
        out = tail(*args)
        if out is not None:
            count.append(1)
        return out

    monkeypatch.setattr(api, "gated_tail", note)
    return count


def lively(gate: str, dtype: torch.dtype, shape: tuple[int, ...], last: bool) -> tuple[nn.ModuleList, Any, Any]:
    """Norm and attention in the type in which maps are worked on, a map and a shortcut."""
    module, z, r = example("none", dtype, shape, last)
    attention = GATES[gate](shape[1])
    for p in attention.parameters():
        nn.init.normal_(p, std=0.5)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return nn.ModuleList([module[0], attention]).to(wide), z, r


SHAPES = [(4, 16, 9, 7), (3, 33, 4, 4), (2, 5, 1, 1), (2, 6, 40, 33), (5, 130, 1, 3), (2, 8, 11), (2, 8, 3, 4, 5)]
CASES = [(torch.float64, shape) for shape in SHAPES] + [(kind, SHAPES[k]) for kind in list(LIMITS)[1:] for k in (1, 3)]


@pytest.mark.parametrize(("dtype", "shape"), CASES, ids=str)
@pytest.mark.parametrize("gate", GATES)
def test_equals_the_tail_in_parts(
    gate: str, dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, used: list[int]
) -> None:
    for last in [False, True] if len(shape) > 3 else [False]:
        for training, act in ((True, nn.ReLU()), (False, None), (True, nn.ReLU6()), (True, F.silu)):
            module, z, r = lively(gate, dtype, shape, last)
            module.train(training)
            shortcut = None if act is None else r
            del used[:]
            one = run("fused", module, z, shortcut, act)
            assert used == [1]
            with monkeypatch.context() as patch:
                patch.setattr(api, "gate_of", lambda *args: None)
                parts = run("fused", module, z, shortcut, act)
            assert used == [1]
            assert one[0].stride() == parts[0].stride()
            assert difference(one, parts) <= LIMITS[dtype]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gate", GATES)
def test_without_gradients(gate: str, training: bool, used: list[int]) -> None:
    module, z, r = lively(gate, torch.float64, (3, 8, 5, 4), True)
    outputs = []
    for mode in ("reference", "fused"):
        norm, attention = copy.deepcopy(module).train(training)
        with torch.no_grad(), ops.use(mode):
            outputs.append([ops.residual_tail(z, norm, attention, r, F.relu), norm.running_var])
            outputs[-1].append(ops.attend(z, attention))
    assert difference(*outputs) <= 1e-12


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gate", ["eca", "se, biases", "srm"])
def test_first_and_second_derivatives_by_finite_differences(gate: str, training: bool, used: list[int]) -> None:
    module, z, r = lively(gate, torch.float64, (3, 4, 3, 2), False)
    norm, attention = module.train(training)
    norm.momentum = 0.0

    def tail(z: torch.Tensor, r: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        with ops.use("fused"):
            return ops.residual_tail(z, norm, attention, r, F.relu)

    if isinstance(attention.gate, StyleNorm):
        attention.gate.bn.momentum = 0.0
    inputs = (z.requires_grad_(), r.requires_grad_(), *module.parameters())
    assert torch.autograd.gradcheck(tail, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(tail, inputs, atol=1e-6)
    assert used


class OwnConv(LocalConv):
    """A gate of one's own."""

    def forward(self, descriptor: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(descriptor)


def changed(change: str, module: nn.ModuleList) -> None:
    attention = module[1]
    gate: Any = attention.gate
    if change == "hook on the gate":
        gate.register_forward_hook(lambda module, args, w: w * 0.5)
    elif change == "hook on the gate's convolution":
        gate.conv.register_forward_hook(lambda module, args, y: y + 1)
    elif change == "gate of one's own":
        gate.__class__ = OwnConv
    elif change == "dilated convolution":
        gate.conv.dilation, gate.conv.padding = (2,), (2,)
    elif change == "parametrised convolution":
        nn.utils.parametrizations.weight_norm(gate.conv)
    elif change == "gate in another type":
        gate.float()
    elif change == "bottleneck with a norm":
        attention.gate = Bottleneck(8, 4, norm=True).double()
    elif change == "bottleneck with another activation":
        attention.gate = Bottleneck(8, 4, activation="hard_sigmoid").double()
    elif change == "bottleneck with a hook inside":
        attention.gate = Bottleneck(8, 4).double()
        attention.gate.act.register_forward_hook(lambda module, args, y: 2 * y)


CHANGES = [
    "hook on the gate", "hook on the gate's convolution", "gate of one's own", "dilated convolution",
    "parametrised convolution", "gate in another type", "bottleneck with a norm", "bottleneck with another activation",
    "bottleneck with a hook inside",
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_known_goes_the_way_in_parts(change: str, used: list[int]) -> None:
    module, z, r = lively("eca", torch.float64, (3, 8, 5, 4), False)
    changed(change, module)
    limit = 1e-5 if "another type" in change else 1e-10
    assert difference(run("reference", module, z, r, F.relu), run("fused", module, z, r, F.relu)) <= limit
    assert not used


def test_numbers_of_a_norm_in_two_types(used: list[int]) -> None:
    module, z, r = lively("eca", torch.float64, (3, 8, 5, 4), False)
    expected = run("reference", module, z, r, F.relu)
    module[0].weight.data = module[0].weight.data.float()
    found = run("fused", module, z, r, F.relu)
    assert difference(expected[:3], found[:3]) <= 1e-5
    assert not used


def test_hooks_on_every_module_see_the_gate(used: list[int]) -> None:
    module, z, _ = lively("eca", torch.float64, (3, 8, 5, 4), False)
    seen: list[type] = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, args, y: seen.append(type(module)))
    try:
        with ops.use("fused"):
            ops.attend(z, module[1])
    finally:
        hook.remove()
    assert LocalConv in seen
    assert not used


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_do_not_depend_on_the_threads(threads: int) -> None:
    module, z, r = lively("eca", torch.float32, (2, 130, 9, 9), True)
    several = run("fused", module, z, r, F.relu)
    torch.set_num_threads(2)
    assert all(torch.equal(x, y) for x, y in zip(several, run("fused", module, z, r, F.relu), strict=True))


@pytest.mark.parametrize("gate", ["eca", "se", "srm"])
def test_autocast_reaches_neither_pass(gate: str) -> None:
    module, z, r = lively(gate, torch.float32, (3, 8, 5, 4), True)
    expected = run("fused", module, z, r, F.relu)
    with torch.autocast("cpu", torch.bfloat16):
        found = run("fused", module, z, r, F.relu)
    assert difference(expected, found) == 0


def test_gradients_that_nobody_wants_are_not_given_and_graphs_are_freed(used: list[int]) -> None:
    module, z, r = lively("se", torch.float64, (3, 8, 5, 4), False)
    norm, attention = module
    norm.requires_grad_(False)
    attention.gate.reduce.requires_grad_(False)
    with ops.use("fused"):
        out = ops.residual_tail(z, norm, attention, r.requires_grad_(), F.relu)
    out.sum().backward()
    assert used == [1]
    assert norm.weight.grad is attention.gate.reduce.weight.grad is None
    assert attention.gate.expand.weight.grad is not None
    with pytest.raises(RuntimeError, match="second time"):
        out.sum().backward()


def test_every_form_names_what_it_takes() -> None:
    assert set(gated.TAKES.values()) == {"mean", "mean and deviation"}
