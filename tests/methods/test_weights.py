"""`weights(x)`: what every channel is multiplied by, wherever that is well defined; EMCA's context and precision."""

import copy

import pytest
import torch
from cases import CASES, Case, shake

import excite
from excite.attention import WeighsChannels
from excite.errors import UsageError
from excite.ops.precision import without_autocast

# Those that add to the map, or weigh positions alone.
WITHOUT = {"none", "ge/average4", "ge/theta2", "ge/theta_plus4", "gsop/position", "gc", "nl", "nl/gaussian", "nl/dot"}
WITHOUT |= {"a2", "a2/residual", "cbam/positions", "sse", "sge", "ema"}
# The output is not just `x` times the weights, channel by channel.
BESIDE = {"bam", "sa", "psa", "ma", "sk", "split", "scse", "scsa", "cpca"}
# It is on average over the positions.
MEANS = {"coord", "simple_coord", "strip", "ela", "simam", "triplet", "mca", "mlca", "nam"}
OTHERS = {n for n, c in CASES.items() if c.method == "cbam" and n != "cbam/channel"} | {
    f"gsop/{m}" for m in ("sum", "max", "concat")
}
EXACT = {n: c for n, c in CASES.items() if n not in WITHOUT | OTHERS and c.method not in BESIDE | MEANS}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES.keys())
def test_who_has_weights(name: str, case: Case) -> None:
    module = shake(case.build()).eval()
    assert isinstance(module, WeighsChannels) == (name not in WITHOUT)
    if name in WITHOUT:
        return
    weights = module.weights(case.map())
    branches = {"sk": len(getattr(module, "branches", ())), "split": case.options.get("radix", 2)}
    assert weights.shape == (4, case.channels * branches.get(case.method, 1))
    assert weights.dtype == torch.float32
    with pytest.raises(UsageError, match=str(case.channels)):
        module.weights(torch.randn(2, case.channels + 2, 9, 9))


@pytest.mark.parametrize("case", EXACT.values(), ids=EXACT.keys())
def test_weights_are_what_the_map_is_multiplied_by(case: Case) -> None:
    module = shake(case.build()).eval()
    x = case.map()
    expected = x * module.weights(x)[:, :, None, None]
    if case.method in ("gc", "grn"):  # these add one number per channel, too
        expected = expected + (module(x) - expected).mean((2, 3), keepdim=True)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.method in MEANS])
def test_weights_that_are_means_over_positions(name: str) -> None:
    case = CASES[name]
    for dims in (1, 2, 3):
        module = shake(case.build(dims)).eval()
        x = case.map(dims).abs() + 0.5
        torch.testing.assert_close(module.weights(x), (module(x) / x).flatten(2).mean(2))


def test_weights_beside_other_factors() -> None:
    x = torch.randn(3, 16, 5, 6)
    scse, scsa, cpca = (shake(excite.create_attention(m, 16)).eval() for m in ("scse", "scsa", "cpca"))
    by_channel = x * scse.weights(x)[:, :, None, None]
    torch.testing.assert_close(scse(x), by_channel + scse.position(x))
    torch.testing.assert_close(scsa(x), scsa.spatial(x) * scsa.weights(x)[:, :, None, None])
    h = torch.nn.functional.gelu(cpca.project(x)) * cpca.weights(x)[:, :, None, None]
    g = cpca.first(h)
    spatial = cpca.project(g + sum(strip(g) for strip in cpca.strips))
    torch.testing.assert_close(cpca(x), cpca.project(h * spatial))
    for fusion in ("sum", "max"):
        gsop = shake(excite.create_attention("gsop", 16, mode=fusion, reduced=4)).eval()
        both = torch.stack((x * gsop.weights(x)[:, :, None, None], gsop.position(x)))
        torch.testing.assert_close(gsop(x), both.sum(0) if fusion == "sum" else both.amax(0))


def test_weights_where_positions_count_too() -> None:
    x = torch.rand(3, 16, 5, 6) + 0.5
    bam = shake(excite.create_attention("bam", 16)).eval()
    torch.testing.assert_close(bam.weights(x), (bam(x) / x).mean((2, 3)))
    sa = shake(excite.create_attention("sa", 16, groups=2)).eval()
    shuffled = x.reshape(3, 2, 2, 4, 5, 6).flatten(1, 3).reshape(3, 2, 8, 5, 6).transpose(1, 2).reshape(x.shape)
    factors = (sa(x) / shuffled).mean((2, 3))
    torch.testing.assert_close(sa.weights(x), factors.reshape(3, 8, 2).transpose(1, 2).reshape(3, 16))
    cbam = shake(excite.create_attention("cbam", 16)).eval()
    torch.testing.assert_close(cbam.weights(x), cbam.channel.weights(x))


@pytest.mark.parametrize("method", ["psa", "ma"])
def test_weights_of_competing_branches(method: str) -> None:
    module = shake(
        excite.create_attention(method, 16, out_channels=32, **({"mixer_size": 3} if method == "ma" else {}))
    )
    module.eval()
    x = torch.randn(3, 16, 6, 6)
    joined = torch.cat([branch(x) for branch in module.branches][::-1], dim=1)
    weights = module.weights(x)
    torch.testing.assert_close(module(x), joined * weights[:, :, None, None])
    torch.testing.assert_close(weights.reshape(3, 4, 8).sum(1), torch.ones(3, 8))


@pytest.mark.parametrize(("method", "options"), [("sk", {"kernels": (3, 5)}), ("split", {"radix": 2, "groups": 2})])
def test_weights_of_branches_that_are_added(method: str, options: dict) -> None:
    module = shake(excite.create_attention(method, 16, out_channels=32, **options)).eval()
    x = torch.randn(3, 16, 6, 6)
    if method == "sk":
        maps = torch.stack([branch(x) for branch in module.branches], dim=1)
    else:
        maps = module.convolution(x).unflatten(1, (2, 32))
    weights = module.weights(x).unflatten(1, (2, 32))
    torch.testing.assert_close(module(x), (maps * weights[:, :, :, None, None]).sum(1))
    torch.testing.assert_close(weights.sum(1), torch.ones(3, 32))


EMCAS = [
    (gate, form, scales) for gate in ("se", "eca", "srm") for form in ("paper", "released") for scales in (0, 1, 3)
]


@pytest.mark.parametrize(("gate", "form", "scales"), EMCAS)
def test_emca_runs_beyond_autocast_and_needs_its_context(gate: str, form: str, scales: int) -> None:
    torch.manual_seed(0)
    module = shake(excite.create_attention(f"emca_{gate}", 16, form=form, scales=scales)).eval()
    numbers = 2 if gate == "srm" else 1
    context = [torch.rand(4, c, numbers) for c in (8, 32, 16)[: max(0, scales - 1)]]
    x = torch.rand(4, 16, 6, 6)
    weights = module.weights(x, context)
    torch.testing.assert_close(module(x, context), x * weights[:, :, None, None])
    assert torch.equal(weights, module.weights_of(module.squeeze(x), context))
    half = x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = module.weights(half, [d.bfloat16() for d in context])
        assert module(half, context).dtype == torch.bfloat16
    assert under.dtype == torch.float32
    exact = module.weights(half.float(), [d.bfloat16().float() for d in context])
    torch.testing.assert_close(under, exact, rtol=1e-2, atol=5e-3)  # the mean itself is rounded, nothing after it
    for wrong in (context[1:] if scales > 1 else [torch.rand(4, 8, numbers)], [*context, torch.rand(4, 8, numbers)]):
        for call in (module, module.weights):
            with pytest.raises(UsageError, match=f"fuses {max(0, scales - 1)} earlier"):
                call(x, wrong)
        with pytest.raises(UsageError, match="earlier"):
            module.weights_of(module.squeeze(x), wrong)
    if scales > 1:
        with pytest.raises(UsageError, match=r"descriptors \[n any"):
            module(x, [torch.rand(4, 8, 5), *context[1:]])
    with pytest.raises(UsageError, match="over 16 channels"):
        module(torch.rand(4, 8, 6, 6), context)


@pytest.mark.parametrize(("gate", "options"), [("se", {"bias": True}), ("eca", {"kernel_size": 5}), ("srm", {})])
def test_emca_without_fusion_is_its_gate_bit_for_bit(gate: str, options: dict) -> None:
    alone = shake(excite.create_attention(gate, 16, **options)).eval()
    x = torch.randn(3, 16, 7, 7)
    for form in ("paper", "released"):
        module = excite.create_attention(f"emca_{gate}", 16, form=form, **options).eval()
        module.load_state_dict(copy.deepcopy(alone.state_dict()))
        expected = alone.weights(x)
        assert torch.equal(module.weights(x), expected if form == "paper" else 1 + expected)


def test_autocast_is_left_alone_where_it_is_off() -> None:
    assert torch.equal(without_autocast(torch.sin, torch.ones(3)), torch.ones(3).sin())


def test_gates_and_squeezes_are_public_and_complete() -> None:
    for module in (excite.gates, excite.squeezes):
        own = {n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, torch.nn.Module)}
        assert own <= set(module.__all__) | {"nn"}, own - set(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
