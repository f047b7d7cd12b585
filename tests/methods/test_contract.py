"""What every method promises, tested over every method and its variants."""

import copy

import pytest
import torch
from cases import BEYOND_HALF, CASES, FIXED_SIZE, PLAIN, Case, shake

from excite.errors import UsageError
from excite.registry import METHODS, get_method, method_options

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_plain = pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN.keys())


def compiled_in_turn(turn: int) -> pytest.MarkDecorator:
    """Two of three methods and one of three variants: in three turns each method is compiled in two ways by default."""
    variants = [name for name in CASES if name not in PLAIN]
    slow = {name for number, name in enumerate(variants) if number % 3 != turn}
    slow |= {name for number, name in enumerate(PLAIN) if number % 3 == turn}
    cases = [pytest.param(c, id=n, marks=pytest.mark.slow if n in slow else ()) for n, c in CASES.items()]
    return pytest.mark.parametrize("case", cases)


def test_every_method_is_covered() -> None:
    assert {c.method for c in CASES.values()} == set(METHODS)


@every
def test_keeps_the_shape_with_one_two_and_three_axes(case: Case) -> None:
    for dims in case.dims:
        module = case.build(dims)
        x = case.map(dims)
        assert module(x).shape == x.shape
        wide = torch.randn(2, case.channels, *(6, 9, 5)[:dims])
        if "size" not in case.options:
            assert module(wide).shape == wide.shape


@pytest.mark.parametrize("case", [c for n, c in PLAIN.items() if n != "none"], ids=lambda c: c.method)
def test_refuses_other_maps(case: Case) -> None:
    module = case.build()
    with pytest.raises(UsageError, match=str(case.channels)):
        module(torch.randn(2, case.channels + 2, 9, 9))
    with pytest.raises(UsageError):
        module(torch.randn(2, case.channels))
    for dims in {1, 2, 3} - set(case.dims):
        with pytest.raises(UsageError):
            module(torch.randn(2, case.channels, *(9,) * dims))
    if "dims" in method_options(case.method):
        with pytest.raises(UsageError, match="dims"):
            case.build(4)


SPATIAL = {n: c for n, c in CASES.items() if "dims" in method_options(c.method)}


@pytest.mark.parametrize("case", SPATIAL.values(), ids=SPATIAL.keys())
def test_a_wrong_number_of_axes_is_said_where_it_was_fixed(case: Case) -> None:
    with pytest.raises(UsageError, match="dims=1"):
        case.build(2)(case.map(1))


@every
def test_keeps_dtype_and_memory_format(case: Case) -> None:
    module = shake(case.build()).eval()
    x = case.map()
    expected = module(x)
    assert expected.dtype == torch.float32
    last = module(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    for dtype, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.15)):
        out = copy.deepcopy(module).to(dtype)(x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)


HALVES = {
    f"{name}-{kind}": (case, dtype)
    for name, case in CASES.items()
    for kind, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16))
    if not (kind == "fp16" and name in BEYOND_HALF)
}


@pytest.mark.parametrize(("case", "dtype"), HALVES.values(), ids=HALVES.keys())
def test_large_maps_under_autocast_stay_finite(case: Case, dtype: torch.dtype) -> None:
    x = 1e4 * (2 * torch.rand(4, case.channels, *case.map().shape[2:]) - 1)
    for training in (False, True):
        module = shake(case.build()).train(training)
        half = x.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=dtype):
            out = module(half)
        assert torch.isfinite(out).all()
        out.float().mean().backward()
        assert torch.isfinite(half.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@every
def test_one_sample_in_eval_equals_its_part_of_a_batch(case: Case) -> None:
    module = shake(case.build()).eval()
    x = case.map()
    torch.testing.assert_close(module(x[:1]), module(x)[:1], rtol=1e-4, atol=1e-5)


@every
def test_one_sample_in_training_works_or_says_why(case: Case) -> None:
    module = case.build().train()
    try:
        assert torch.isfinite(module(case.map(n=1))).all()
    except UsageError as error:
        assert "2 samples" in str(error)  # noqa: PT017


@every
def test_gradients(case: Case) -> None:
    module = shake(case.build()).double().eval()
    x = case.map(n=2, side=4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)


@every
def test_every_parameter_is_used(case: Case) -> None:
    module = case.build().train()
    module(case.map().requires_grad_()).square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []


@every
def test_construction_is_deterministic_and_the_state_is_complete(case: Case) -> None:
    first, second, other = case.build(seed=3), case.build(seed=3), shake(case.build(seed=4))
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    other.load_state_dict(a)
    x = case.map()
    torch.testing.assert_close(other.eval()(x), first.eval()(x), rtol=0, atol=0)


@every_plain
def test_initial_behaviour_is_as_the_card_says(case: Case) -> None:
    module = case.build()
    x = case.map()
    same = torch.equal(module.eval()(x), x) and torch.equal(module.train()(x), x)
    assert same == get_method(case.method).identity_at_init


@every
def test_runs_where_its_parameters_are(case: Case) -> None:
    # The meta device refuses any tensor that a forward pass makes elsewhere.
    with torch.device("meta"):
        module = case.build()
        out = module(torch.empty(4, case.channels, *case.map().shape[2:]))
    assert out.device.type == "meta"
    assert out.shape == (4, case.channels, *case.map().shape[2:])


@compiled_in_turn(0)
def test_compiles_as_one_graph(case: Case) -> None:
    module = shake(case.build())
    reference = copy.deepcopy(module)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager", dynamic=False)
    x = case.map()
    torch.testing.assert_close(compiled(x), reference(x))


@compiled_in_turn(1)
def test_compiles_as_one_graph_under_autocast(case: Case) -> None:
    module = shake(case.build()).eval()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager", dynamic=False)
    x = case.map(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("name", ["se", "srm", "fca", "cbam"])
def test_compiles_forward_and_backward(name: str) -> None:
    module = shake(CASES[name].build())
    reference = copy.deepcopy(module)
    torch._dynamo.reset()
    x = CASES[name].map()
    torch.compile(module, fullgraph=True, backend="aot_eager")(x).square().sum().backward()
    reference(x).square().sum().backward()
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.slow
@every
def test_compiles_with_inductor(case: Case) -> None:
    module = shake(case.build())
    reference = copy.deepcopy(module)
    torch._dynamo.reset()
    x = case.map()
    out = torch.compile(module, fullgraph=True)(x)
    torch.testing.assert_close(out, reference(x), rtol=1e-4, atol=1e-4)
    out.square().mean().backward()


@compiled_in_turn(2)
def test_exports_with_any_batch_and_size(case: Case) -> None:
    if (key := next(k for k, c in CASES.items() if c is case)) in FIXED_SIZE:
        shapes, side = ({0: torch.export.Dim.DYNAMIC},), 7
    else:
        shapes, side = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),), 12
    module = shake(case.build()).eval()
    x = torch.randn(3, case.channels, side, side + 2 * (key not in FIXED_SIZE))
    program = torch.export.export(module, (x,), dynamic_shapes=shapes).module()
    other = torch.randn(2, case.channels, *((7, 7) if key in FIXED_SIZE else (10, 17)))
    torch.testing.assert_close(program(other), module(other), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every
def test_equals_itself_on_a_gpu(case: Case) -> None:
    module = shake(case.build()).eval()
    x = case.map()
    expected = module(x)
    module, x = module.cuda(), x.cuda()
    torch.testing.assert_close(module(x).cpu(), expected, rtol=1e-2, atol=1e-2)
    with torch.autocast("cuda", dtype=torch.float16):
        assert torch.isfinite(module((1e4 * x.clamp(-1, 1)).half())).all()
