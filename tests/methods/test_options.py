"""Options do what they say; wrong ones say what would be right."""

import pytest
import torch
import torch.nn.functional as F
from cases import shake
from torch import nn

import excite
from excite.errors import UsageError
from excite.methods.gsop import covariance
from excite.methods.nd import spread
from excite.registry import METHODS


@pytest.mark.parametrize(
    ("method", "channels", "options", "message"),
    [
        ("se_gc", 64, {"groups": 3}, r"near values that do: \[1, 2, 4"),
        ("se_gc", 64, {"groups": 4, "group_size": 4}, "not both"),
        ("eca_ns", 64, {"kernel_size": 4}, "odd"),
        ("ceca", 2, {"kernel_size": 7}, "larger than the 2 channels"),
        ("fca", 24, {"frequencies": "top16"}, "frequencies"),
        ("fca", 64, {"frequencies": "best16"}, "top16"),
        ("fca", 64, {"size": "7,7,7"}, "2 integers"),
        ("fca", 64, {"size": 0}, "positive"),
        ("gct", 64, {"norm": "l3"}, "'l2'"),
        ("ge", 64, {"extent": 3}, "extent"),
        ("ge", 64, {"variant": "minus"}, "'theta-'"),
        ("ge", 64, {"variant": "theta"}, "size=14"),
        ("ge", 64, {"variant": "theta", "extent": 2, "size": 7}, "extent=0"),
        ("gsop", 64, {"mode": "both"}, "'channel'"),
        ("gsop", 64, {"reduced": 0}, "positive"),
        ("cbam", 64, {"kernel_size": 4}, "odd"),
        ("cbam", 64, {"pools": "avg,median"}, "avg,max,lp,lse"),
        ("cbam", 64, {"reduction": 0}, "positive"),
        ("bam", 64, {"combine": "max"}, "'product'"),
        ("sa", 24, {"groups": 64}, r"near values that do: \[4, 6, 12\]"),
        ("sa", 7, {}, "pairs"),
        ("gc", 64, {"fusion": "sum"}, "'add'"),
        ("gc", 64, {"pool": "max"}, "'average'"),
        ("nl", 64, {"mode": "concat"}, "'embedded'"),
        ("a2", 64, {"maps": 0}, "positive"),
        ("psa", 64, {"groups": (1, 2, 4)}, "4 integers"),
        ("psa", 64, {"groups": (1, 4, 8, 32)}, "branch's output channels"),
        ("psa", 64, {"kernels": "3,4,5,7"}, "odd"),
        ("psa", 64, {"kernels": "three"}, "integers"),
        ("ma", 66, {}, "4 branches"),
        ("ma", 64, {"stride": 0}, "positive"),
        ("cbam", 64, {"dims": 4}, "1, 2, 3 or None"),
        ("cbam", 64, {"channel": False, "spatial": False}, "leaves nothing"),
        ("ela", 24, {"groups": 16}, r"near values that do: \[8, 12, 24\]"),
        ("scsa", 18, {}, "multiple of 4"),
        ("scsa", 16, {"heads": 5}, "heads"),
        ("ema", 24, {"groups": 32}, "groups"),
        ("sge", 24, {"groups": 64}, "groups"),
        ("lct", 24, {"groups": 64}, "groups"),
        ("sk", 64, {"kernels": 3}, "2 integers"),
        ("sk", 64, {"kernels": (3, 5, 7), "dilations": (1, 2)}, "dilations needs 3 integers"),
        ("sk", 9, {"split": True}, "branches"),
        ("split", 64, {"radix": 3}, "radix"),
        ("split", 64, {"groups": 2, "hidden": 9}, "hidden units"),
        ("gsop", 64, {"mode": "both"}, "'concat'"),
        ("gsop", 224, {"mode": "concat"}, "3 groups"),
    ],
)
def test_wrong_options(method: str, channels: int, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        excite.create_attention(method, channels, **options)


@pytest.mark.parametrize("channels", [4, 8, 12, 16, 20, 24, 28, 64, 96, 144, 160, 320])
def test_defaults_fit_any_width(channels: int) -> None:
    for name in METHODS:
        module = excite.create_attention(name, channels).eval()
        assert module(torch.randn(1, channels, 3, 3)).shape == (1, channels, 3, 3)


@pytest.mark.parametrize("method", ["psa", "ma", "sk", "split"])
def test_convolutions_stride_and_widen(method: str) -> None:
    module = excite.create_attention(method, 32, out_channels=64, stride=2)
    assert module(torch.randn(2, 32, 9, 8)).shape == (2, 64, 5, 4)
    if method in ("psa", "ma"):
        named = excite.create_attention(method, 64, groups="1,4,8,16", kernels=[3, 5, 7, 9])
        assert named(torch.randn(2, 64, 4, 4)).shape == (2, 64, 4, 4)


def test_lists_in_a_network_are_written_with_slashes() -> None:
    with torch.device("meta"):
        psa = excite.create_model("psa_resnet50", groups="1/2/4/4")
        cbam = excite.create_model("cbam_resnet18", pools="avg/lse")
        with pytest.raises(UsageError, match="write them as 1/2/3/4"):
            excite.create_model("psa_resnet50", groups=(1, 4, 8, 16))
    convs = [m for m in psa.modules() if type(m).__name__ == "PyramidAttention"]
    assert len(convs) == 16
    assert [b.groups for b in convs[0].branches] == [1, 2, 4, 4]
    assert {m.names for m in cbam.modules() if type(m).__name__ == "Pools"} == {("avg", "lse")}


def test_released_groups_of_epsanet_large() -> None:
    module = excite.create_attention("psa", 128, groups=(32, 32, 32, 32))
    assert [b.groups for b in module.branches] == [32] * 4


def test_bam_sum_and_product_differ_only_in_joining() -> None:
    torch.manual_seed(0)
    both = [excite.create_attention("bam", 32, combine=c).eval() for c in ("sum", "product")]
    both[1].load_state_dict(both[0].state_dict())
    x = torch.randn(2, 32, 8, 8)
    channel, spatial = both[0].channel(x)[:, :, None, None], both[0].spatial(x)
    torch.testing.assert_close(both[0](x), x * (1 + torch.sigmoid(channel + spatial)))
    torch.testing.assert_close(both[1](x), x * (1 + torch.sigmoid(channel * spatial)))


@pytest.mark.parametrize("mode", ["embedded", "gaussian", "dot"])
def test_non_local_equals_its_definition(mode: str) -> None:
    torch.manual_seed(0)
    block = excite.create_attention("nl", 8, mode=mode).double().eval()
    nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    flat = x.flatten(2)
    q, k = (flat, flat) if mode == "gaussian" else (block.theta(flat), block.phi(flat))
    scores = torch.einsum("ncp,ncq->npq", q, k)
    weights = scores / 12 if mode == "dot" else scores.softmax(dim=-1)
    z = torch.einsum("npq,ncq->ncp", weights, block.g(flat))
    torch.testing.assert_close(block(x), x + block.norm(block.out(z)).reshape(x.shape))


def test_non_local_subsamples_what_it_looks_at() -> None:
    torch.manual_seed(0)
    block = excite.create_attention("nl", 8, subsample=True, norm=False).eval()
    nn.init.normal_(block.out.weight)
    x = torch.randn(2, 8, 6, 4)
    flat, seen = x.flatten(2), F.max_pool2d(x, 2).flatten(2)
    scores = torch.einsum("ncp,ncq->npq", block.theta(flat), block.phi(seen)).softmax(dim=-1)
    z = torch.einsum("npq,ncq->ncp", scores, block.g(seen))
    torch.testing.assert_close(block(x), x + block.out(z).reshape(x.shape))


@pytest.mark.parametrize(("side", "reduced"), [(8, 64), (8, 6), (14, 6), (7, 6), (28, 5), (3, 4)])
def test_gsop_positions_equal_their_definition(side: int, reduced: int) -> None:
    torch.manual_seed(0)
    block = excite.create_attention("gsop", 8, mode="position", reduced=reduced).double().eval()
    x = torch.randn(2, 8, side, side, dtype=torch.float64)
    h = F.adaptive_avg_pool2d(block.reduce_norm(block.reduce(x.relu())), (8, 8)).flatten(2)
    centring = torch.full((reduced, reduced), -1 / 64**2, dtype=torch.float64) + torch.eye(reduced) / 64
    matrix = h.transpose(1, 2) @ centring @ h
    grid = torch.sigmoid(block.gate(matrix)).reshape(2, 1, 8, 8)
    positions = torch.relu(x * F.adaptive_avg_pool2d(grid, (side, side)))
    torch.testing.assert_close(block(x), positions)
    if reduced == 64:
        rows = h.transpose(1, 2)
        torch.testing.assert_close(matrix, torch.stack([torch.cov(row, correction=0) for row in rows]))


@pytest.mark.parametrize(("channels", "groups", "size"), [(256, 4, 11), (512, 8, 9), (2048, 32, 5), (16, 1, 15)])
def test_gsop_joins_maps_by_grouped_convolutions(channels: int, groups: int, size: int) -> None:
    torch.manual_seed(0)
    block = excite.create_attention("gsop", channels, mode="concat", reduced=4).double()
    assert block.by_channel.weight.shape == (channels, channels // groups, size, 1)
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64)
    attended = (block.channel(x), block.position(x))
    layers = (block.by_channel, block.by_position)
    joined = sum(
        F.conv2d(m, layer.weight, layer.bias, padding=(size // 2, 0), groups=groups)
        for m, layer in zip(attended, layers, strict=True)
    )
    torch.testing.assert_close(block(x), F.batch_norm(joined, None, None, training=True))


@pytest.mark.parametrize("size", [(1,), (3,), (7, 9), (5, 5), (14, 11), (2, 28, 6)])
def test_a_grid_is_spread_as_adaptive_pooling_does_it(size: tuple[int, ...]) -> None:
    pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(size)]
    grid = torch.randn(2, 3, *(5,) * len(size), dtype=torch.float64)
    torch.testing.assert_close(spread(grid, torch.empty(2, 3, *size)), pool(grid, size))


def as_timm(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    """Load timm's state into ours; shapes may differ by axes of size one."""
    own = ours.state_dict()
    state = {}
    for key, value in theirs.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new, 1)
        state[key] = value.reshape(own[key].shape)
    ours.load_state_dict(state)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pool", ["avg", "avg+max"])
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_se_with_a_norm_and_two_pools_equals_timm(norm: bool, pool: str, gate: str) -> None:
    from timm.layers import SEModule

    torch.manual_seed(0)
    layer = nn.BatchNorm2d if norm else None
    theirs = SEModule(48, rd_channels=6, add_maxpool=pool != "avg", norm_layer=layer, gate_layer=gate).double()
    ours = excite.create_attention("se", 48, hidden=6, bias=True, pool=pool, norm=norm, gate=gate).double()
    as_timm(ours, theirs, {"fc1.": "gate.reduce.", "fc2.": "gate.expand.", "bn.": "gate.norm."})
    x = torch.randn(4, 48, 7, 5, dtype=torch.float64)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))
    peak = excite.create_attention("se", 48, pool="max")
    torch.testing.assert_close(peak.squeeze(x).squeeze(-1), x.amax((2, 3)))


@pytest.mark.parametrize("channels", [16, 64, 96, 256])
def test_eca_with_an_mlp_equals_timm(channels: int) -> None:
    from timm.layers import EcaModule

    torch.manual_seed(0)
    theirs = EcaModule(channels, use_mlp=True).double()
    ours = excite.create_attention("eca", channels, use_mlp=True).double()
    as_timm(ours, theirs, {"conv2.": "gate.conv2.", "conv.": "gate.conv."})
    x = torch.randn(2, channels, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_gct_after_relu_sums_without_signs() -> None:
    plain, after = (excite.create_attention("gct", 8, norm="l1", after_relu=a) for a in (False, True))
    for module in (plain, after):
        nn.init.constant_(module.gate.gamma, 0.7)
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(after(x.relu()), plain(x.relu()))
    torch.testing.assert_close(after.squeeze(x).squeeze(-1), x.sum((2, 3)))
    assert not torch.allclose(after(x), plain(x))


@pytest.mark.parametrize("channels", [16, 48, 64, 72, 256, 512])
def test_simple_coord_has_the_widths_of_timm(channels: int) -> None:
    from timm.layers.coord_attn import SimpleCoordAttn

    ours, theirs = excite.create_attention("simple_coord", channels), SimpleCoordAttn(channels)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_directions_are_told_apart() -> None:
    # A map that grows down the rows alone: the factors differ between rows, not between columns.
    x = torch.arange(6.0)[:, None].expand(2, 8, 6, 5).clone()
    for method in ("coord", "ela", "strip", "simple_coord"):
        torch.manual_seed(0)
        module = excite.create_attention(method, 8).eval()
        factors = (module(x + 1) / (x + 1))[..., 1:-1]  # convolutions see the ends of a strip
        middle = factors.shape[-1] // 2
        torch.testing.assert_close(factors[..., :1].expand_as(factors[..., : middle + 1])[..., 0], factors[..., 0])
        assert factors.std(2).max() > 1e-4, method


def test_the_axes_of_a_map_may_change_places() -> None:
    # With one gate for all axes a transposed map gives the transposed result.
    module = shake(excite.create_attention("ela", 16)).eval()
    x = torch.randn(2, 16, 6, 9)
    torch.testing.assert_close(module(x.transpose(2, 3)), module(x).transpose(2, 3))
    block = shake(excite.create_attention("triplet", 16)).eval()
    assert not torch.allclose(block(x.transpose(2, 3)), block(x).transpose(2, 3))


@pytest.mark.parametrize("method", ["simam", "mca", "sge", "grn", "mlca", "coord"])
@pytest.mark.parametrize("side", [1, 6])
def test_constant_maps_and_single_positions_stay_finite(method: str, side: int) -> None:
    module = shake(excite.create_attention(method, 16)).eval()
    x = torch.zeros(2, 16, side, side).requires_grad_()
    module(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert module(torch.full((2, 16, side, side), 3.0)).isfinite().all()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("simam_", "simam"), ("sim_am", "simam"), ("coordatt", "coord"), ("coord_attn", "coord"), ("scSE", "scse"),
        ("triplet_attention", "triplet"), ("sknet", "sk"), ("split_attn", "split"), ("cbamm", "cbam"), ("ecaa", "eca"),
        ("SimAM", "simam"), ("emca", "emca_eca"), ("cpcaa", "cpca"), ("CBAM", "cbam"), ("eca_net", "eca"),
        ("global_context", "gc"), ("shuffle_attention", "sa"), ("squeeze_excite", "se"),
    ],
)  # fmt: skip
def test_near_names_are_sensible(written: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean .*'{meant}'"):
        excite.create_attention(written, 16)


def test_scsa_pools_maps_smaller_than_its_window_as_a_whole() -> None:
    small, whole = (excite.create_attention("scsa", 16, window=w) for w in (7, 0))
    whole.load_state_dict(shake(small).state_dict())
    x = torch.randn(2, 16, 5, 4)
    torch.testing.assert_close(small(x), whole(x))


def test_covariance_is_biased() -> None:
    x = torch.randn(2, 5, 11, dtype=torch.float64)
    for ours, row in zip(covariance(x), x, strict=True):
        torch.testing.assert_close(ours, torch.cov(row, correction=0))


def test_learned_global_gather_is_one_large_depthwise_convolution() -> None:
    torch.manual_seed(0)
    block = excite.create_attention("ge", 6, variant="theta", size=(4, 5), bias=True).eval()
    x = torch.randn(2, 6, 4, 5)
    sums = F.conv2d(x, block.squeeze.weight, block.squeeze.bias, groups=6).flatten(1)
    weights = torch.sigmoid(block.squeeze.norm(sums))
    torch.testing.assert_close(block(x), x * weights[:, :, None, None])
    with pytest.raises(UsageError, match="size"):
        block(torch.randn(2, 6, 5, 4))
    assert excite.create_attention("ge", 6, variant="theta", size="3,4,5")(torch.randn(2, 6, 3, 4, 5)).dim() == 5


def test_se_gc_sees_only_its_group() -> None:
    block = excite.create_attention("se_gc", 16, group_size=4)
    x = torch.randn(1, 16, 3, 3)
    changed = x.clone()
    changed[:, 0] += 1
    same = torch.isclose(block.weights(x), block.weights(changed))[0]
    assert same[4:].all()
    assert not same[:4].any()


def test_ceca_is_eca_on_a_ring() -> None:
    ring, line = excite.create_attention("ceca", 8, kernel_size=3), excite.create_attention("eca", 8, kernel_size=3)
    line.load_state_dict(ring.state_dict())
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(ring.weights(x)[:, 1:-1], line.weights(x)[:, 1:-1])
    rolled = ring.weights(x.roll(3, dims=1))
    torch.testing.assert_close(rolled, ring.weights(x).roll(3, dims=1))


@pytest.mark.parametrize("space", [(8,), (8, 8), (8, 8, 8), (3, 5, 4)])
def test_average_gather_is_the_mean_of_its_window(space: tuple[int, ...]) -> None:
    block = excite.create_attention("ge", 2, extent=2, dims=len(space))
    x = torch.randn(1, 2, *space)
    corner = x[(slice(None), slice(None), *(slice(0, 2),) * len(space))].flatten(2).mean(2)
    expected = x[(slice(None), slice(None), *(0,) * len(space))] * torch.sigmoid(corner)
    torch.testing.assert_close(block(x)[(slice(None), slice(None), *(0,) * len(space))], expected)


def test_light_cbam_equals_timm() -> None:
    from timm.layers.cbam import LightCbamModule

    torch.manual_seed(0)
    theirs = LightCbamModule(32, rd_ratio=1 / 8).eval()
    ours = excite.create_attention("cbam", 32, reduction=8, mlp_bias=False, average_pools=True).eval()
    state = theirs.state_dict()
    ours.load_state_dict(
        {
            "channel.gate.reduce.weight": state["channel.fc1.weight"].flatten(1),
            "channel.gate.expand.weight": state["channel.fc2.weight"].flatten(1),
            **{
                k.replace("spatial.conv.conv", "spatial.conv").replace("spatial.conv.bn", "spatial.norm"): v
                for k, v in state.items()
                if k.startswith("spatial")
            },
        }
    )
    x = torch.randn(2, 32, 7, 7)
    torch.testing.assert_close(ours(x), theirs(x))


CALLED = {
    "emanet": "'ma'",
    "resnest": "'split'",
    "vovnet": "'ese'",
    "sknet": "'sk'",
    "ecanet": "'eca'",
    "gcnet": "'gc'",
    "epsanet": "'psa'",
    "CA": "'coord'",
    "CoordAtt": "'coord'",
    "coordinate": "'coord'",
    "SELayer": "'se'",
    "SKConv": "'sk'",
    "channel_attention": "'se'",
    "spatial-attention": "'sse'",
    "CbamModule": "'cbam'",
    "NAMAttention": "'nam'",
    "efficient_channel_attention": "'eca'",
}


@pytest.mark.parametrize("name", list(CALLED))
def test_names_that_people_type(name: str) -> None:
    with pytest.raises(UsageError, match=rf"did you mean {CALLED[name]}"):
        excite.create_attention(name, 64)


def test_sa_shuffles_its_halves() -> None:
    """A fresh module weighs everything by sigmoid(1): what is left is the shuffle. Sums and norms do not show it."""
    x = torch.randn(2, 8, 3, 3)
    y = excite.create_attention("sa", 8, groups=2)(x)
    torch.testing.assert_close(y, torch.sigmoid(torch.tensor(1.0)) * x[:, [0, 4, 1, 5, 2, 6, 3, 7]])
