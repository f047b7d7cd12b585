"""The fused tail against its unfused twin: output, every gradient, the running statistics."""

import copy

import pytest
import torch
from tails import METHODS, attention, difference, example, run
from torch import nn
from torch.nn import functional as F

from excite import ops


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_unfused_twin_in_float64(method: str, last: bool, training: bool) -> None:
    module, z, r = example(method, torch.float64, last=last)
    module.train(training)
    assert difference(run("reference", module, z, r, nn.ReLU()), run("fused", module, z, r, nn.ReLU())) <= 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_large_maps_take_the_statistics_per_sample(method: str) -> None:
    module, z, r = example(method, torch.float64, (3, 16, 40, 33), last=True)
    assert difference(run("reference", module, z, r, F.relu), run("fused", module, z, r, F.relu)) <= 1e-10


@pytest.mark.parametrize("act", [None, nn.ReLU(), nn.ReLU6(), nn.ReLU(inplace=True), nn.SiLU(), F.gelu])
@pytest.mark.parametrize("shortcut", [True, False])
def test_any_activation_with_and_without_shortcut(act: object, shortcut: bool) -> None:
    module, z, r = example("eca", torch.float64)
    one, two = (run(mode, module, z, r if shortcut else None, act) for mode in ("reference", "fused"))
    assert difference(one, two) <= 1e-10


@pytest.mark.parametrize(("shape", "last"), [((4, 8, 11), False), ((3, 8, 3, 4, 5), False), ((3, 8, 3, 4, 5), True)])
@pytest.mark.parametrize("method", ["eca", "srm"])
def test_one_and_three_dimensions(method: str, shape: tuple[int, ...], last: bool) -> None:
    module, z, r = example(method, torch.float64, shape, last)
    assert difference(run("reference", module, z, r, F.relu), run("fused", module, z, r, F.relu)) <= 1e-10


@pytest.mark.parametrize(
    "changes",
    [{"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"momentum": 0.3, "eps": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_kinds_of_batch_norm(changes: dict[str, object], training: bool) -> None:
    module, z, r = example("srm", torch.float64)
    module[0] = nn.BatchNorm2d(16, **changes).double()  # type: ignore[arg-type]
    module.train(training)
    assert difference(run("reference", module, z, r, F.relu), run("fused", module, z, r, F.relu)) <= 1e-10


def test_momentum_none_averages_over_batches() -> None:
    plain, fused = (nn.BatchNorm2d(4, momentum=None).double() for _ in range(2))
    torch.manual_seed(1)
    for _ in range(3):
        z = torch.randn(2, 4, 5, 5).double()
        plain(z)
        with ops.use("fused"):
            ops.residual_tail(z, fused, None, None, None)
    torch.testing.assert_close(plain.running_var, fused.running_var, rtol=1e-12, atol=0)
    assert int(fused.num_batches_tracked) == 3


# Half precision: one rounding of the output is 2^-8 (bfloat16) or 2^-11 (float16) the twin rounds three times.
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 5e-6), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)], ids=str
)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("method", ["none", "se", "eca", "gct", "fca"])
def test_tolerance_of_each_type(method: str, last: bool, dtype: torch.dtype, limit: float) -> None:
    module, z, r = example(method, torch.float32, last=last)
    exact = run("reference", module.double(), z.to(dtype).double(), r.to(dtype).double(), None)
    # The parameters stay in float32, as under autocast.
    found = run("fused", module.float(), z.to(dtype), r.to(dtype), None)
    assert found[0].dtype == dtype
    assert difference([x.double() for x in exact[:3]], [x.double() for x in found[:3]]) <= limit


def test_variance_survives_a_large_mean() -> None:
    module, z, r = example("srm", torch.float32)
    z = z + 3000
    exact = run("reference", module.double(), z.double(), r.double(), None)
    found = run("fused", module.float(), z, r, None)
    assert difference(exact[:1], [found[0].double()]) <= 2e-3


def test_gradient_that_is_an_expanded_view() -> None:
    module, z, r = example("eca", torch.float64)
    found = []
    for mode in ("reference", "fused"):
        leaf = z.clone().requires_grad_()
        with ops.use(mode):
            ops.residual_tail(leaf, module[0], module[1], r, F.relu).mean((2, 3)).square().sum().backward()
        found.append(leaf.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_parts_that_need_no_gradient() -> None:
    module, z, r = example("eca", torch.float64)
    for frozen in ("z", "shortcut", "norm", "gate"):
        found = []
        for mode in ("reference", "fused"):
            zl, rl = z.clone().requires_grad_(frozen != "z"), r.clone().requires_grad_(frozen != "shortcut")
            module[0].requires_grad_(frozen != "norm")
            module[1].requires_grad_(frozen != "gate")
            module.zero_grad()
            with ops.use(mode):
                ops.residual_tail(zl, module[0], module[1], rl, F.relu).square().sum().backward()
            found.append([zl.grad, rl.grad, *(p.grad for p in module.parameters())])
        assert difference(*found) <= 1e-10, frozen


def test_first_and_second_derivatives_by_finite_differences() -> None:
    module, z, r = example("srm", torch.float64, (3, 4, 3, 2))
    module[0] = nn.BatchNorm2d(4, track_running_stats=False).double()
    parameters = dict(module[0].named_parameters())

    def tail(z: torch.Tensor, r: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        with ops.use("fused"):
            assert ops.why_not(z, module[0], module[1], r) is None
            return ops.residual_tail(z, module[0], module[1], r, None)

    inputs = (z.requires_grad_(), r.requires_grad_(), *parameters.values(), *module[1].parameters())
    assert torch.autograd.gradcheck(tail, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(tail, inputs, atol=1e-6)


def test_gradient_penalty_mixes_both_kinds_of_backward() -> None:
    module, z, r = example("eca", torch.float64)
    found = []
    for mode in ("reference", "fused"):
        leaf = z.clone().requires_grad_()
        with ops.use(mode):
            out = ops.residual_tail(leaf, module[0], module[1], r, F.relu)
            (slope,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
            (out.pow(3).sum() + slope.square().sum()).backward()
        found.append([leaf.grad])
    assert difference(*found) <= 1e-10


@pytest.mark.parametrize("method", ["none", "eca"])
def test_running_statistics_that_move_before_the_backward_pass(method: str) -> None:
    module, z, r = example(method, torch.float64)
    norm, rest = module[0].eval(), module[1] if method != "none" else None
    found = []
    for moved in (False, True):
        leaf, kept = z.clone().requires_grad_(), copy.deepcopy(norm)
        with ops.use("fused"):
            out = ops.residual_tail(leaf, kept, rest, r, F.relu)
        if moved:
            kept.running_mean.add_(1)
            kept.running_var.mul_(3)
        slopes = torch.autograd.grad(out.square().sum(), [leaf, kept.weight], create_graph=True)
        found.append([x.detach() for x in (*slopes, *torch.autograd.grad(out.pow(3).sum(), [leaf, kept.weight]))])
    assert difference(*found) == 0


@pytest.mark.parametrize("method", ["eca", "srm", "fca"])
def test_descriptor_of_the_described_tail(method: str) -> None:
    module, z, r = example(method, torch.float64)
    squeeze, gate = module[1].squeeze, module[1].gate
    found = []
    for mode in ("reference", "fused"):
        leaf = z.clone().requires_grad_()
        with ops.use(mode):
            out, s = ops.described_tail(leaf, module[0], squeeze, lambda s: gate(s) + s.sum(-1), r, F.relu)
            (out.square().sum() + s.pow(3).sum()).backward()
        found.append([out.detach(), s.detach(), leaf.grad])
    assert difference(*found) <= 1e-10


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "none"])
def test_attention_that_stands_alone(method: str, last: bool, grad: bool) -> None:
    module, z, _ = example(method, torch.float64, last=last)
    made, found = module[1], []
    for mode in ("reference", "fused"):
        leaf = z.clone().requires_grad_(grad)
        made.zero_grad()
        with ops.use(mode), torch.set_grad_enabled(grad):
            out = made(leaf)
        if grad:
            out.pow(3).sum().backward()
        found.append([out.detach(), leaf.grad, *(p.grad.clone() for p in made.parameters() if p.grad is not None)])
    assert difference(*found) <= 1e-10


def test_alone_in_half_precision_under_autocast() -> None:
    module, z, _ = example("se", torch.float32)
    found = []
    for mode in ("reference", "fused"):
        with ops.use(mode), torch.autocast("cpu", torch.bfloat16):
            found.append([module[1](z.bfloat16()).detach()])
    assert found[1][0].dtype == torch.bfloat16
    assert difference(*found) <= 1e-2


def test_alone_keeps_its_input_only() -> None:
    eca, x = attention("eca", 64), torch.randn(4, 64, 32, 32, requires_grad=True)
    seen: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with ops.use("fused"), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        eca(x)
    assert sum(seen.values()) < 1.02 * x.numel() * 4


def test_bias_of_autocast_is_the_same_either_way() -> None:
    module, z, r = example("se", torch.float32)
    z, r = z.bfloat16(), r.bfloat16()
    found = []
    for mode in ("reference", "fused"):
        with torch.no_grad(), ops.use(mode), torch.autocast("cpu", torch.bfloat16):
            found.append([ops.residual_tail(z, module[0], module[1], r, F.relu)])
    assert difference(*found) <= 3e-2


def test_fused_block_end_saves_z_and_the_output_only() -> None:
    norm, eca = nn.BatchNorm2d(64), attention("eca", 64)
    z, r = (torch.randn(4, 64, 32, 32).requires_grad_() for _ in range(2))
    sizes = {}
    for mode in ("reference", "fused"):
        seen: dict[int, int] = {}

        def pack(t: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with ops.use(mode), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = ops.residual_tail(z, norm, eca, r, F.relu)
        sizes[mode] = sum(seen.values()) / (z.numel() * 4)
        del out
    assert sizes["fused"] < 2.03
    assert sizes["reference"] > 2.9


@pytest.mark.parametrize("act", [None, nn.ReLU(), nn.ReLU6(), nn.SiLU()])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("method", ["none", "se", "eca", "srm"])
@torch.inference_mode()
def test_inference_takes_a_shorter_way(method: str, last: bool, act: nn.Module | None) -> None:
    module, z, r = example(method, torch.float32, last=last)
    norm, attention = module[0].eval(), module[1] if method != "none" else None
    before = z.clone(), r.clone()
    for shortcut in (r, None):
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
            maps = [None if x is None else x.to(dtype) for x in (z, shortcut)]
            with ops.use("reference"):
                exact = ops.residual_tail(
                    maps[0].float(), norm, attention, None if maps[1] is None else maps[1].float(), act
                )
            with ops.use("fused"):
                found = ops.residual_tail(maps[0], norm, attention, maps[1], act)
            assert found.dtype == dtype
            assert found.is_contiguous() == z.is_contiguous()
            torch.testing.assert_close(found.float(), exact, rtol=limit, atol=limit * float(exact.abs().max()))
    assert torch.equal(z, before[0])
    assert torch.equal(r, before[1])
