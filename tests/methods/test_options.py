"""Options do what they say; wrong ones say what would be right."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import excite
from excite.errors import UsageError
from excite.methods.gsop import covariance
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


@pytest.mark.parametrize("method", ["psa", "ma"])
def test_convolutions_stride_and_widen(method: str) -> None:
    module = excite.create_attention(method, 32, out_channels=64, stride=2)
    assert module(torch.randn(2, 32, 9, 8)).shape == (2, 64, 5, 4)
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


def test_gsop_positions_equal_their_definition() -> None:
    torch.manual_seed(0)
    block = excite.create_attention("gsop", 8, mode="position", reduced=6, grid=4).eval()
    x = torch.randn(2, 8, 8, 8)
    h = F.avg_pool2d(block.reduce_norm(block.reduce(x.relu())), 2).flatten(2)
    h = h - h.mean(1, keepdim=True)
    matrix = torch.einsum("ncp,ncq->npq", h, h) / 6
    weights = torch.sigmoid(block.gate(matrix)).reshape(2, 1, 4, 4)
    expected = torch.relu(x * weights.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(block(x), expected)


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
