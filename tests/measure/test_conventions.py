"""The counters against the tools they are named after."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from excite.errors import UsageError
from excite.inspect.trace import trace_model
from excite.measure.conventions import CONVENTIONS, FAMILIES, MODULE_CONVENTIONS, RULES, check, count, seen_parameters
from excite.models import create_model


class Odd(nn.Module):
    """One of everything that the counters know, and some that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=True),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.LeakyReLU(),
            nn.PReLU(),
            nn.AvgPool2d(2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.GroupNorm(2, 4),
            nn.InstanceNorm2d(4),
            nn.BatchNorm2d(4, affine=False),
            nn.Conv2d(4, 4, 3, groups=2),
            nn.ELU(),
            nn.MaxPool2d(2),
            nn.Dropout(),
            nn.AdaptiveAvgPool2d((3, 5)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 6),
            nn.LayerNorm(6),
            nn.Softmax(dim=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def total(model: nn.Module, convention: str, side: int) -> int:
    return sum(count(trace_model(model, (1, 3, side, side)), convention).values())


def meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options)


# Made by the three releases of thop themselves (on PyPI): thop.profile(Odd(), (torch.zeros(1, 3, 96, 96),)).
@pytest.mark.parametrize(("convention", "macs"), [("thop-1907", 10470974), ("thop-2005", 11322204), ("thop", 11255665)])
def test_every_layer_as_thop_counts_it(convention: str, macs: int) -> None:
    assert total(Odd(), convention, 96) == macs


# The same for networks of torchvision: 96x96, thop 0.0.23 (float32 sums, hence the tolerance), 0.0.31 and 0.1.1.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision/mobilenet_v3_small", (15327328, 12653696, 13169784)),
        ("torchvision/shufflenet_v2_x0_5", (10196536, 8646496, 9022624)),
        ("timm/efficientnet_b0", (74339832, 72442972, 72433632)),
    ],
)
def test_foreign_networks_as_thop_counts_them(name: str, expected: tuple[int, int, int]) -> None:
    trace = trace_model(meta(name), (1, 3, 96, 96))
    for convention, macs in zip(("thop-1907", "thop-2005", "thop"), expected, strict=True):
        assert abs(sum(count(trace, convention).values()) - macs) <= 32, convention


# thop 0.1.1 on the references, recorded in the golden files.
@pytest.mark.parametrize(
    ("name", "options", "side", "macs"),
    [
        ("resnet50", {}, 224, 4133742592),
        ("mobilenet_v2", {}, 224, 327486720),
        ("eca_mobilenet_v2", {}, 224, 328064224),
        ("eca_resnet18", {"kernel_size": 3}, 224, 1824794112),
        ("eca_resnet50", {"kernel_size": "3,5,5,7"}, 224, 4139363328),
        ("srm_resnet50", {}, 224, 4133803008),
        ("fca_resnet50", {}, 224, 4136257536),
        ("timm/seresnet50", {}, 224, 4136257536),
    ],
)
def test_references_as_thop_counts_them(name: str, options: dict[str, object], side: int, macs: int) -> None:
    # timm's own SE pools by a function that thop does not see, as the golden file has it; its resnet pools by a module.
    assert total(meta(name, **options), "thop", side) == macs


def test_thop_misses_parameters() -> None:
    trace = trace_model(meta("srm_resnet50"), (1, 3, 64, 64))
    assert seen_parameters(trace, "thop-2005") == 25587240
    assert sum(p.numel() for p in meta("srm_resnet50").parameters()) == 25617448


@pytest.mark.parametrize(
    "name", ["resnet50", "eca_resnet50", "srm_resnet18", "cbam_resnet18", "emanet50_cifar", "torchvision/densenet121"]
)
def test_macs_are_half_of_the_flop_counter(name: str) -> None:
    model = meta(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 64, 64, device="meta"))
    assert 2 * total(model, "macs", 64) == counter.get_total_flops()


def test_attention_in_transformers_counts_as_the_flop_counter_does() -> None:
    model = meta("timm/vit_tiny_patch16_224").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert 2 * total(model, "macs", 224) == counter.get_total_flops()


@pytest.mark.parametrize("name", ["eca_resnet18", "se_resnet18", "cbam_resnet18", "torchvision/mobilenet_v3_small"])
def test_agrees_with_fvcore(name: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn")
    model = create_model(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = fvcore.FlopCountAnalysis(model, torch.zeros(1, 3, 64, 64))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        expected = analysis.total()
    assert total(model, "fvcore", 64) == expected


def test_odd_layers_agree_with_fvcore() -> None:
    fvcore = pytest.importorskip("fvcore.nn")
    model = Odd().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = fvcore.FlopCountAnalysis(model, torch.zeros(1, 3, 96, 96))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        expected = analysis.total()
    assert total(model, "fvcore", 96) == expected


def test_published_resnet50_figures() -> None:
    model = meta("resnet50")
    assert round(total(model, "macs", 224) / 1e9, 3) == 4.089
    assert round(total(model, "fvcore", 224) / 1e9, 3) == 4.112


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(self.act(x)[:, :, :4, :4]))


def test_the_first_thop_counts_a_shared_module_once() -> None:
    # The rectifier ran on 3*8*8, then on 3*4*4: only the last call counts. The others sum (mmcv) or count nothing.
    conv = 3 * 4 * 4 * 3
    assert total(Shared(), "thop-1907", 8) == conv + 3 * 4 * 4
    assert total(Shared(), "thop-2005", 8) == conv
    assert total(Shared(), "mmcv", 8) == conv + 3 * 4 * 4 + 3 * 8 * 8


def test_mmcv_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, stride=2))
    conv, norm, relu = 4 * 36 * (27 + 1), 2 * 4 * 36, 4 * 36
    deconvolution = 2 * 12 * 12 * (4 * 4 + 1)  # at the output size, as the papers' counter did
    assert total(model, "mmcv", 8) == conv + norm + relu + deconvolution


def test_the_table_names_only_known_families_and_conventions() -> None:
    assert set(RULES) == set(FAMILIES)
    assert {c for rules in RULES.values() for c in rules} == set(MODULE_CONVENTIONS)
    assert set(MODULE_CONVENTIONS) < set(CONVENTIONS)


def test_unknown_convention() -> None:
    with pytest.raises(UsageError, match=r"unknown convention 'thop-1908'; did you mean 'thop-1907'"):
        check(["macs", "thop-1908"])
