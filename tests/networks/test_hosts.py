"""What other libraries ask of a network: levels of maps, no classifier, pools, dropped paths, strides, groups."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import excite
from excite.backbones.blocks import Block
from excite.backbones.names import BACKBONES
from excite.errors import UsageError
from excite.inspect.attention import attention_paths
from excite.models import NetworkSpec, spec_of
from excite.ops import use

ONE = {"blocks_per_stage": "1,1,1,1", "widths": "16,16,32,32"}
TWO = {**ONE, "blocks_per_stage": "1,2,1,1"}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet18", ONE),
    "deep": ("se_resnet50", {**ONE, "stem": "deep", "avg_down": True}),
    "resnet20": ("eca_resnet20", {"width": 4}),
    "cifar": ("srm_resnet18_cifar", ONE),
    "between": ("bam_resnet18", ONE),
    "conv": ("psa_resnet50", {**ONE, "widths": "64,64,64,64"}),
    "mobilenet": ("eca_mobilenet_v2", {"width_mult": 0.25}),
    "regnet": ("regnety_400mf_cifar", {}),
    "emca": ("emca_eca_resnet18", TWO),
    "emca released": ("emca_se_resnet18", {**TWO, "form": "released"}),
    "emca branch": ("emca_srm_resnet20", {"width": 4, "where": "branch"}),
    "emca mobilenet": ("emca_eca_mobilenet_v2", {"width_mult": 0.25}),
}
EVERY = sorted(BACKBONES) + ["emca_eca_resnet50", "emca_se_mobilenet_v2", "emanet50", "cbam_resnet34", "gsop_resnet50"]


def build(case: str, **options: Any) -> Any:
    torch.manual_seed(0)
    name, own = SMALL[case]
    return excite.create_model(name, **{"num_classes": 7, **own, **options})


def images(n: int = 2, side: int = 64, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", SMALL)
def test_forward_and_backward(case: str) -> None:
    model = build(case, drop_rate=0.1, drop_path_rate=0.2).train()
    out = model(images(4))
    assert out.shape == (4, 7)
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (65, 97)])
def test_input_sizes(case: str, size: tuple[int, int]) -> None:
    model = build(case).eval()
    with torch.inference_mode():
        out = model(torch.randn(1, 3, *size))
    assert out.shape == (1, 7)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("case", SMALL)
def test_levels(case: str) -> None:
    whole = build(case).eval()
    levels = list(whole.feature_info)
    wholes = build(case, features_only=True).eval()
    assert wholes.state_dict().keys() <= whole.state_dict().keys()
    with torch.inference_mode():
        maps = wholes(images())
        assert len(maps) == len(levels) == len(whole.feature_channels) + 1
        for level, x in zip(levels, maps, strict=True):
            assert x.shape[:2] == (2, level["num_chs"])
            assert x.shape[-1] == -(-64 // level["reduction"])
            whole.get_submodule(level["module"])
        for mine, features in zip(maps[1:], whole.forward_features(images()), strict=True):
            assert torch.equal(mine, features)
        last, some = whole.forward_intermediates(images(), indices=[0, 2])
        assert torch.equal(last, maps[-1])
        assert all(torch.equal(a, b) for a, b in zip(some, (maps[0], maps[2]), strict=True))
        for indices in ((0,), (1, 2), (-1,), (0, len(levels) - 1)):
            part = build(case, features_only=True, out_indices=indices).eval()
            expected = [maps[i] for i in indices]
            assert all(torch.equal(a, b) for a, b in zip(part(images()), expected, strict=True))
            assert part.feature_info.channels() == [levels[i]["num_chs"] for i in indices]
            assert part.feature_info.reduction() == [levels[i]["reduction"] for i in indices]
    part = build(case, features_only=True, out_indices=(0, 1)).train()
    sum(x.mean() for x in part(images())).backward()
    assert all(p.grad is not None for p in part.parameters()), "a parameter behind the last level is left"


@pytest.mark.parametrize("case", SMALL)
def test_no_classifier_pools_and_a_new_classifier(case: str) -> None:
    model = build(case).eval()
    last = model.forward_features(images())[-1]
    trunk = {k: v for k, v in model.state_dict().items() if not k.startswith(model.classifier_name)}
    bare, unpooled, largest = (build(case, num_classes=0, global_pool=pool).eval() for pool in ("avg", "", "max"))
    for other in (bare, unpooled, largest):
        other.load_state_dict(trunk)
    pooled = bare(images())
    assert pooled.shape == (2, model.num_features) == (2, last.shape[1])
    assert torch.allclose(pooled, last.mean((2, 3)), atol=1e-6)
    assert torch.equal(model.forward_head(last, pre_logits=True), pooled)
    assert torch.equal(unpooled(images()), last)
    assert torch.equal(largest(images()), last.amax((2, 3)))
    assert isinstance(model.get_classifier(), nn.Linear)
    model.reset_classifier(11, "max")
    assert model(images()).shape == (2, 11)
    assert model.num_classes == spec_of(model).num_classes == 11
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(images()).shape == (2, model.num_features)


@pytest.mark.parametrize("case", SMALL)
def test_first_weights_do_not_depend_on_these_options(case: str) -> None:
    plain = build(case).state_dict()
    options: dict[str, Any] = {"drop_rate": 0.1, "drop_path_rate": 0.1}
    if case != "conv":
        options["output_stride"] = build(case).feature_info[-2]["reduction"]
    for state in (build(case, **options).state_dict(), build(case, features_only=True).state_dict()):
        assert all(torch.equal(value, plain[key]) for key, value in state.items())


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("mode", ["reference", "fused"])
def test_checkpointing_changes_nothing(case: str, mode: Any) -> None:
    results = []
    for enable in (False, True):
        model = build(case, drop_path_rate=0.3).train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(3)
        with use(mode):
            out = model(images(4))
            out.square().mean().backward()
        results.append((out, {k: p.grad for k, p in model.named_parameters()}, model.state_dict()))
    (out, grads, state), (other_out, other_grads, other_state) = results
    assert torch.equal(out, other_out)
    for key, value in state.items():
        assert torch.equal(value, other_state[key]), key
    for key, grad in grads.items():
        assert torch.allclose(grad, other_grads[key], rtol=1e-4, atol=1e-7), key


def test_checkpointing_keeps_less() -> None:
    kept = []
    for enable in (False, True):
        model = build("emca", blocks_per_stage="2,3,2,2").train()
        model.set_grad_checkpointing(enable)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            model(images(4))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("case", ["resnet18", "deep", "resnet20", "emca", "emca released", "emca branch", "mobilenet"])
def test_dropped_paths_fused_and_in_turn(case: str) -> None:
    outs, grads = [], []
    for mode in ("reference", "fused"):
        model = build(case, drop_path_rate=0.5).double().train()
        torch.manual_seed(5)
        with use(mode):  # type: ignore[arg-type]
            out = model(images(8).double())
            out.square().mean().backward()
        outs.append(out)
        grads.append([p.grad for p in model.parameters()])
    assert torch.allclose(outs[0], outs[1], rtol=1e-8, atol=1e-10)
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-10) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("mode", ["reference", "fused"])
def test_a_dropped_branch_leaves_the_shortcut(mode: Any) -> None:
    for case in ("resnet20", "emca branch", "cifar"):
        model = build(case)
        block = next(b for b in model.blocks() if b.downsample is None and not b.sources).train()
        block.drop_path = 0.5
        x = torch.rand(64, block.last_norm.num_features, 8, 8)
        with use(mode):
            out = block(x)
        out = out if isinstance(out, torch.Tensor) else out[0]
        same = (out - x).abs().amax((1, 2, 3)) < 1e-6
        assert 15 < int(same.sum()) < 49
        whole = copy.deepcopy(block)
        whole.drop_path = 0.0
        every = whole(x)
        every = every if isinstance(every, torch.Tensor) else every[0]
        positive = (out > 0) & (every > 0) & ~same[:, None, None, None]  # the rectifier hides the others
        assert torch.allclose((out - x)[positive], 2 * (every - x)[positive], atol=1e-4)  # kept twice as strong
        block.eval()
        plain = copy.deepcopy(block)
        plain.drop_path = 0.0
        first, second = block(x), plain(x)
        pairs = [(first, second)] if isinstance(first, torch.Tensor) else zip(first, second, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_rates_grow_from_block_to_block() -> None:
    rates = [b.drop_path for b in build("resnet20", drop_path_rate=0.4).modules() if isinstance(b, Block)]
    assert rates == pytest.approx([0.4 * i / 8 for i in range(9)])
    model = build("resnet20", drop_rate=0.5)
    model.train()
    torch.manual_seed(0)
    pooled = model.forward_head(torch.ones(1, model.num_features, 2, 2), pre_logits=True)
    assert set(pooled.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "case", ["resnet18", "deep", "between", "mobilenet", "emca", "emca released", "emca mobilenet"]
)
def test_output_stride(case: str, output_stride: int) -> None:
    model = build(case, output_stride=output_stride).eval()
    assert model.feature_info[-1]["reduction"] == output_stride
    for level, x in zip(model.feature_info[1:], model.forward_features(images()), strict=True):
        assert x.shape[-1] == 64 // level["reduction"]


@pytest.mark.parametrize("output_stride", [1, 2])
@pytest.mark.parametrize("case", ["resnet20", "regnet"])
def test_output_stride_of_small_networks(case: str, output_stride: int) -> None:
    model = build(case, output_stride=output_stride).eval()
    assert model.forward_features(images(1, 16))[-1].shape[-1] == 16 // output_stride


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 8), ("resnet18", 16), ("resnet50", 8), ("resnet18d", 32)],
)
def test_networks_and_dilated_ones_equal_timms(name: str, output_stride: int) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(name, num_classes=7, output_stride=output_stride).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):  # timm's last ones start from zero: branches would not matter
                module.weight.uniform_(0.5, 1, generator=torch.Generator().manual_seed(0))
    how = {"stem": "deep", "avg_down": True} if name.endswith("d") else {}
    ours = excite.create_model(name.removesuffix("d"), num_classes=7, output_stride=output_stride, **how).eval()
    ours.load_state_dict(theirs.state_dict())
    x = images(2, 72)  # the maps of 9 positions are halved, too
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.forward_features(x)[-1], theirs.forward_features(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [7, 8])
def test_dilated_averages_hold_those_of_the_strided_network(size: int) -> None:
    """timm pads with zeros here, so that what it averages at the border is halved: not so in the strided network."""
    x = images(2, size)[:, :1].expand(-1, 64, -1, -1)
    pools: list[Any] = []
    for output_stride in (32, 4):
        model = excite.create_model("resnet18", num_classes=3, avg_down=True, stem="deep", output_stride=output_stride)
        pools.append(model.get_submodule("layer2.0.downsample.0"))
    torch.testing.assert_close(pools[1](x)[..., ::2, ::2], pools[0](x))


def test_norms_of_attention_start_from_the_scale_that_was_asked_for() -> None:
    """CBAM's spatial gate with a norm of scale 0 weighs all positions alike; the networks' own norms start from 1."""
    model = excite.create_model("cbam_resnet20", num_classes=3, width=8, norm_scale=0).eval()
    attention: list[Any] = [model.get_submodule(path) for path in attention_paths(model)]
    assert len(attention) == 9
    for module in attention:
        x = 0.5 + torch.rand(2, module.channels, 6, 5)
        weights = module(x) / x
        torch.testing.assert_close(weights, weights.mean((2, 3), keepdim=True).expand_as(weights))


@pytest.mark.parametrize("case", SMALL)
def test_the_default_configuration_is_true(case: str) -> None:
    model = build(case, in_channels=4).eval()
    cfg = model.pretrained_cfg
    assert cfg is model.default_cfg
    assert cfg["num_classes"] == 7
    assert isinstance(model.get_submodule(cfg["classifier"]), nn.Linear)
    first = next(m for m in model.get_submodule(cfg["first_conv"]).modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == cfg["input_size"][0] == 4
    with torch.inference_mode():
        x = torch.randn(1, *cfg["input_size"])
        assert model.forward_features(x)[-1].shape[-2:] == cfg["pool_size"]
        assert model(x).shape == (1, 7)


@pytest.mark.parametrize("case", SMALL)
def test_groups_for_layer_wise_decay(case: str) -> None:
    manipulate = pytest.importorskip("timm.models._manipulate")
    model = build(case)
    names = dict(model.named_parameters())
    for coarse in (False, True):
        groups = manipulate.group_parameters(model, model.group_matcher(coarse=coarse))
        assert sorted(n for group in groups.values() for n in group) == sorted(names)
        assert any(n.startswith(("conv1", "features.0")) for n in groups[0])
        assert all(n.startswith(("fc", "classifier")) for n in groups[max(groups)])
        order = [n for layer in sorted(groups) for n in groups[layer]]
        assert len(groups) == (2 + _units(model, coarse)), groups.keys()
        assert order.index(next(iter(names))) == 0


def _units(model: Any, coarse: bool) -> int:
    if hasattr(model, "features"):
        return len(model.taps) + 1 if coarse else len(model.features) - 1
    return len(model.depths) if coarse else sum(model.depths)


def test_what_cannot_be_is_refused() -> None:
    for options, says in (
        ({"in_chans": 1}, "in_channels"),
        ({"out_indices": (1,)}, "features_only"),
        ({"features_only": True, "out_indices": (9,)}, "levels 0 to 4"),
        ({"features_only": "yes"}, "true or false"),
        ({"global_pool": ""}, "num_classes=0"),
        ({"global_pool": "avgmax"}, "global_pool"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"drop_rate": -1}, "drop_rate"),
        ({"output_stride": 12}, "strides 4, 8, 16, 32"),
        ({"num_classes": -1}, "num_classes"),
    ):
        with pytest.raises(UsageError, match=says):
            build("resnet18", **options)
    with pytest.raises(UsageError, match="psa"):
        build("conv", output_stride=8)
    with pytest.raises(UsageError, match="NCHW"):
        build("resnet18").forward_intermediates(images(), norm=True)


def test_a_card_builds_the_same_again() -> None:
    model = build("emca", features_only=True, out_indices="1,3", drop_path_rate=0.1, num_classes=0).eval()
    again = NetworkSpec.from_dict(spec_of(model).to_dict()).build().eval()
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again(images()), model(images()), strict=True))
    assert again.blocks()[-1].drop_path == model.blocks()[-1].drop_path


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_backbone(name: str) -> None:
    model = excite.create_model(name, num_classes=5, drop_path_rate=0.1)
    side = 32 if model.pretrained_cfg["input_size"][1] == 32 else 96
    model.train()(images(2, side)).mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    levels = excite.create_model(name, features_only=True).eval()
    for level, x in zip(levels.feature_info, levels(images(1, side)), strict=True):
        assert x.shape[1:] == (level["num_chs"], side // level["reduction"], side // level["reduction"])
