"""Every backbone of ours takes the same options with every method; lists as options; the bank is plain dataflow."""

from functools import cache

import pytest
import torch
from torch import nn

import excite
from excite.backbones.build import HOST, options_of_backbone
from excite.backbones.names import BACKBONES
from excite.backbones.network import Network
from excite.errors import UsageError

METHODS = ("none", "eca", "emca_eca", "emca_srm")
# A value of every option that some backbone has, and what it needs beside it.
VALUES: dict[str, dict] = {
    "stem": {"stem": "imagenet"},
    "stem_widths": {"stem": "deep", "stem_widths": (8, 16)},
    "avg_down": {"avg_down": True},
    "widths": {"widths": "8,16,32,64"},
    "blocks_per_stage": {},
    "width": {"width": 8},
    "shortcut": {"shortcut": "projection"},
    "width_mult": {"width_mult": 0.5},
    "channels": {"channels": "8,8,8,16,16,24,24,32,64"},
    "dropout": {"dropout": 0.5},
}


@cache
def options_of(backbone: str) -> frozenset[str]:
    return frozenset(options_of_backbone(backbone) - HOST.keys())


def short(backbone: str) -> dict:
    """One block per stage, where the backbone lets us choose."""
    stages = "1,1,1" if "shortcut" in options_of(backbone) else "1,1,1,1"
    return {"blocks_per_stage": stages} if "blocks_per_stage" in options_of(backbone) else {}


def build(method: str, backbone: str, options: dict) -> Network:
    name = backbone if method == "none" else f"{method}_{backbone}"
    with torch.device("meta"):
        return excite.create_model(name, num_classes=5, **options)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items() if ".attention." not in key}


def cases() -> list:
    # One of each family runs always, the others have the same code with other numbers.
    fast = ("resnet18", "resnet20", "mobilenet_v2", "regnety_400mf_cifar")
    return [pytest.param(b, marks=() if b in fast else pytest.mark.slow) for b in BACKBONES]


@pytest.mark.parametrize("backbone", cases())
def test_every_method_takes_every_option(backbone: str) -> None:
    assert options_of(backbone) <= VALUES.keys(), "an option without a value in this test"
    for option in ("", *sorted(options_of(backbone))):
        options = {**short(backbone), **VALUES.get(option, {})}
        if option == "avg_down" and "shortcut" in options_of(backbone):
            options["shortcut"] = "projection"
        plain = build("none", backbone, options)
        for method in METHODS[1:]:
            model = build(method, backbone, options)
            assert shapes(model) == shapes(plain), (method, option)
            assert any(".attention." in key for key in model.state_dict())
            maps = model.forward_features(torch.empty(2, 3, 64, 64, device="meta"))
            assert tuple(m.shape[1] for m in maps) == model.feature_channels
            assert model.forward_head(maps[-1]).shape == (2, 5)


@pytest.mark.parametrize("method", METHODS)
def test_a_regnet_of_every_method_learns_everywhere(method: str) -> None:
    torch.manual_seed(0)
    name = "regnetx_200mf_cifar" if method == "none" else f"{method}_regnetx_200mf_cifar"
    model = excite.create_model(name, num_classes=3)
    model(torch.rand(4, 3, 16, 16)).square().mean().backward()
    assert not [k for k, p in model.named_parameters() if p.grad is None]


def test_one_scale_on_the_branch_is_the_plain_method_in_the_first_blocks() -> None:
    torch.manual_seed(0)
    options = {"num_classes": 5, "avg_down": True, "shortcut": "projection", "stem": "deep", "stem_widths": (4, 8)}
    emca = excite.create_model("emca_eca_resnet20", stages=0, blocks=0, where="branch", **options).eval()
    plain = excite.create_model("eca_resnet20", placement="first", **options).eval()
    plain.load_state_dict(emca.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(emca(x), plain(x), rtol=1e-5, atol=1e-6)


def test_a_fusion_of_the_own_descriptor_alone_is_one_scale() -> None:
    torch.manual_seed(0)
    options = {"num_classes": 5, "avg_down": True, "shortcut": "projection", "blocks_per_stage": "1,1,1"}
    options["where"] = "block"
    fused = excite.create_model("emca_eca_resnet20", **options).eval()
    single = excite.create_model("emca_eca_resnet20", stages=0, blocks=0, **options).eval()
    for name, parameter in fused.named_parameters():
        if name.endswith("fusion.weight"):
            # The outputs of blocks are rectified, so their means are not negative and the fusion returns them.
            parameter.data = torch.zeros_like(parameter).index_fill_(0, torch.tensor(len(parameter) - 1), 1)
    single.load_state_dict({k: v for k, v in fused.state_dict().items() if "fusion" not in k})
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(fused(x), single(x))


def test_the_bank_holds_what_later_blocks_read() -> None:
    emca = build("emca_eca", "resnet20", {"stages": 1, "blocks": 1})
    x = emca.forward_stem(torch.empty(2, 3, 32, 32, device="meta"))
    bank, lengths = emca.start(x), []
    for stage in range(3):
        x, bank = emca.forward_stage(stage, x, bank)
        lengths.append(len(bank))
    assert lengths == [1, 2, 2]
    assert [d.shape for d in bank] == [(2, 16, 1), (2, 32, 1)]
    assert [[b.sources for b in emca.get_submodule(f"layer{s}")] for s in (1, 2, 3)] == [
        [(), (), ()],
        [(0,), (), ()],
        [(1,), (), ()],
    ]


def test_plain_networks_have_an_empty_bank_and_run_whole_stages() -> None:
    model, called = build("eca", "resnet20", {}), []
    for stage in (1, 2, 3):
        model.get_submodule(f"layer{stage}").register_forward_hook(lambda m, args, out: called.append(out.shape[1]))
    x = model.forward_stem(torch.empty(2, 3, 32, 32, device="meta"))
    assert model.start(x) == ()
    assert model.forward_stage(0, x)[1] == ()
    model.forward_features(torch.empty(2, 3, 32, 32, device="meta"))
    assert called == [16, 16, 32, 64]


@pytest.mark.parametrize("sizes", [3557, "3557", "3,5,5,7", [3, 5, 5, 7], (3, 5, 5, 7)])
@pytest.mark.parametrize("method", ["eca", "emca_eca"])
def test_kernel_sizes_per_stage(method: str, sizes: object) -> None:
    model = build(method, "resnet18", {"kernel_size": sizes})
    assert [model.get_submodule(f"layer{s}.0.attention.gate.conv").kernel_size for s in (1, 2, 3, 4)] == [
        (3,),
        (5,),
        (5,),
        (7,),
    ]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("eca_resnet18", {"kernel_size": "355"}, "3 digits; this backbone has 4 stages"),
        ("eca_resnet18", {"kernel_size": "3,5"}, "2 entries; this backbone has 4 stages"),
        ("resnet50", {"blocks_per_stage": "1,1"}, "blocks_per_stage='1,1'; expected 4 positive whole numbers"),
        ("resnet50", {"blocks_per_stage": (1, 0, 1, 1)}, "4 positive whole numbers"),
        ("resnet50", {"blocks_per_stage": 3463}, "4 positive whole numbers"),
        ("emca_se_resnet20", {"blocks_per_stage": "1,1,1,1"}, "expected 3 positive whole numbers"),
        ("resnet18", {"widths": "8,16,a,64"}, "widths='8,16,a,64'"),
        ("emca_se_resnet18", {"stem_widths": (8, 8)}, "belongs to stem='deep'"),
        ("resnet18", {"stem": "deep", "stem_widths": 8}, "one per inner convolution"),
        ("emca_se_resnet20", {"avg_down": True}, "use shortcut='projection'"),
        ("resnet20", {"width": 0.5}, "width=0.5"),
        ("resnet20", {"widths": (8, 16, 32)}, "did you mean 'width'"),
        ("mobilenet_v2", {"width_mult": 0}, "width_mult=0"),
        ("mobilenet_v2", {"channels": "8,8"}, "expected 9 positive whole numbers"),
        ("mobilenet_v2", {"channels": [8] * 9, "width_mult": 0.5}, "give one of them"),
        ("emca_eca_regnetx_200mf_cifar", {"stem": "cifar"}, "has no option 'stem'"),
        ("psa_regnetx_200mf_cifar", {}, "a RegNet has none"),
    ],
)
def test_wrong_lists_and_options(name: str, options: dict, says: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=says):
        excite.create_model(name, **options)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("resnet50_cbam", "cbam_resnet50"),
        ("resnet50_cifar_sa", "sa_resnet50_cifar"),
        ("ECA-Net50", "eca_resnet50"),
        ("senet101", "se_resnet101"),
        ("fcanet50", "fca_resnet50"),
        ("eca_resnet50_k3557", "eca_resnet50"),
        ("seresnet50", "se_resnet50"),
    ],
)
def test_names_as_papers_write_them(written: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        excite.create_model(written)
