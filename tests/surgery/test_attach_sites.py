"""What sites() lists and what a user's words select."""

import inspect

import pytest
import torch
from attach_hosts import Plain, Residual, Vgg, build
from torch import nn
from torchvision.ops import StochasticDepth

import excite
from excite import ExciteError, UsageError
from excite.attention import ChannelAttention
from excite.surgery import PRESETS, Site


def paths(model: nn.Module, wanted: str | list[str], **more: object) -> list[str]:
    report = excite.attach(model, "eca", sites=wanted, **more)
    excite.detach(model)
    return [s.path for s in report.sites]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return build("torchvision/resnet18")


def test_sites_of_resnet(resnet: nn.Module) -> None:
    found = excite.sites(resnet)
    first = found[0]
    assert first == Site(
        "layer1.0.bn2", 64, "residual", 0, 0, (56, 56), "after", ("residual", "all-blocks", "first-in-stage")
    )
    ends = [s for s in found if "stage-ends" in s.presets]
    assert [(s.path, s.channels) for s in ends] == [(f"layer{i}.1", 32 * 2**i) for i in (1, 2, 3, 4)]
    assert {p for s in found for p in s.presets} <= set(PRESETS)


def test_presets(resnet: nn.Module) -> None:
    assert len(paths(resnet, "residual")) == 8
    assert paths(resnet, "first-in-stage") == [f"layer{i}.0.bn2" for i in (1, 2, 3, 4)]
    assert paths(resnet, "last-in-stage") == [f"layer{i}.1.bn2" for i in (1, 2, 3, 4)]
    assert paths(resnet, "between-stages") == ["layer1.1", "layer2.1", "layer3.1"]


def test_patterns_and_lists(resnet: nn.Module) -> None:
    late = ["layer3.0.bn2", "layer3.1.bn2", "layer4.0.bn2", "layer4.1.bn2"]
    assert paths(resnet, "layer[34].*.bn2") == late
    assert paths(resnet, ["layer4.1.bn2", "layer1.0.conv1"]) == ["layer4.1.bn2", "layer1.0.conv1"]
    assert paths(resnet, "layer1.*.bn2, layer4") == ["layer1.0.bn2", "layer1.1.bn2", "layer4.1"]
    assert paths(resnet, "**.bn1")[:2] == ["layer1.0.bn1", "layer1.1.bn1"]


def test_all_blocks_of_mobilenet_include_those_without_shortcut() -> None:
    model = build("torchvision/mobilenet_v2")
    assert len(paths(model, "residual")) == 10
    assert paths(model, "all-blocks") == [f"features.{i}.conv.{2 if i == 1 else 3}" for i in range(1, 18)]


def test_ends_of_stages_without_residual_branches() -> None:
    assert paths(Vgg(), "stage-ends") == ["features.2", "features.6", "features.13", "features.20"]
    dense = paths(build("torchvision/densenet121"), "stage-ends")
    assert dense == [f"features.transition{i}.norm" for i in (1, 2, 3)] + ["features.norm5"]


def test_existing_attention_is_recognised_and_swapped() -> None:
    model = build("timm/regnety_002")
    kinds = [s.path for s in excite.sites(model) if s.kind == "attention"]
    assert kinds[0] == "s1.b1.se"
    x = torch.randn(2, 3, 64, 64)
    before, state = model(x), model.state_dict()
    beside = excite.attach(model, "eca")
    assert beside.existing == tuple(kinds)
    excite.detach(model)
    report = excite.attach(model, "eca", replace=True)
    assert [s.path for s in report.sites] == kinds
    assert all(k.split(".se.")[0] + ".se" in kinds for k in report.removed)
    assert not report.existing
    assert "s1.b1.se.gate.conv.weight" in model.state_dict()
    assert model.load_state_dict(state).missing_keys == []  # the old file, old SE included, is understood
    excite.detach(model)
    assert list(model.state_dict()) == list(state)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "timm/seresnet18"])
def test_swapped_models_train(name: str) -> None:
    model = build(name).train()
    report = excite.attach(model, "srm", replace=True)
    assert report.sites
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_no_sites_says_what_was_looked_for() -> None:
    with pytest.raises(UsageError, match=r"no sites 'residual' in Plain.*concatenation.*'stage-ends' has 2.*sites="):
        excite.attach(Plain(), "eca")
    with pytest.raises(UsageError, match="no attention to replace"):
        excite.attach(Residual(), "eca", replace=True)


def test_pattern_that_matches_nothing(resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"'layer9\.\*\.bn3' is no preset .* no module of ResNet.*layer1\.0\.bn2"):
        excite.attach(resnet, "eca", sites="layer9.*.bn3")
    with pytest.raises(UsageError, match="did you mean 'residual'"):
        excite.attach(resnet, "eca", sites="residuals")
    with pytest.raises(UsageError, match="sites is empty"):
        excite.attach(resnet, "eca", sites=[])
    with pytest.raises(UsageError, match="got 3"):
        excite.attach(resnet, "eca", sites=[3])


def test_channels_unknown(resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"channels unknown: 'fc' returns a tensor of shape \(1, 10\)"):
        excite.attach(resnet, "eca", sites=["fc"])
    with pytest.raises(UsageError, match=r"'layer1\.0\.relu' runs 2 times"):
        excite.attach(resnet, "eca", sites=["layer1.0.relu"])

    class Lazy(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Conv2d(3, 3, 1)

    with pytest.raises(UsageError, match="'unused' did not run"):
        excite.attach(Lazy(), "eca", sites=["unused"])
    with pytest.raises(UsageError, match="has no convolution"):
        excite.sites(nn.Sequential(nn.Linear(3, 3)))


def test_a_network_that_cannot_be_followed() -> None:
    class Picky(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[-1] != 20:
                raise ValueError("images of 20 pixels only")
            return super().forward(x)

    with pytest.raises(ExciteError, match=r"20 pixels only.*input_size="):
        excite.sites(Picky())
    assert excite.sites(Picky(), input_size=(3, 20, 20))


def test_attaching_twice_and_detaching_twice(resnet: nn.Module) -> None:
    excite.attach(resnet, "eca")
    with pytest.raises(UsageError, match=r"attached already \(at 'layer1\.0\.bn2'\).*detach"):
        excite.attach(resnet, "se")
    excite.detach(resnet)
    with pytest.raises(UsageError, match="nothing is attached"):
        excite.detach(resnet)


def test_wrapped_compiled_and_scripted_models(resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"wrapped in DataParallel.*model\.module"):
        excite.attach(nn.DataParallel(resnet), "eca")
    with pytest.raises(UsageError, match=r"compiled.*_orig_mod"):
        excite.attach(torch.compile(resnet), "eca")
    inplace = Plain()
    inplace.compile()
    with pytest.raises(UsageError, match="compiled in place"):
        excite.sites(inplace)
    with pytest.raises(UsageError, match="TorchScript"):
        excite.attach(torch.jit.script(Plain()), "eca")
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, got str"):
        excite.attach("resnet18", "eca")


def test_train_flags_and_hooks_are_as_before() -> None:
    model = Residual()
    model.first.eval()
    flags = [m.training for m in model.modules()]
    excite.sites(model, input_size=(2, 16, 16))
    assert [m.training for m in model.modules()] == flags
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_attention_that_holds_its_convolution_is_no_site_to_replace() -> None:
    model = excite.create_model("psa_resnet50", num_classes=4, blocks_per_stage=(1, 1, 1, 1))
    with pytest.raises(UsageError, match="no attention to replace"):
        excite.attach(model, "eca", replace=True, input_size=(3, 64, 64))
    report = excite.attach(model, "eca", input_size=(3, 64, 64))
    assert report.existing == tuple(f"layer{i}.0.conv2" for i in (1, 2, 3, 4))


def test_attach_is_a_function_whose_settings_go_by_name(resnet: nn.Module) -> None:
    names = inspect.signature(excite.attach).parameters
    assert list(names) == ["model", "method", "sites", "replace", "input_size", "example", "options"]
    with pytest.raises(TypeError):
        excite.attach(resnet, "eca", "residual")  # type: ignore[misc]


class Halves(nn.Module):
    """A sum of two slices of the channels, one of them through convolutions."""

    def __init__(self, chunk: bool) -> None:
        super().__init__()
        self.chunk = chunk
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(first, nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        first, second = x.chunk(2, 1) if self.chunk else (x[:, :8], x[:, 8:])
        return self.head(torch.relu(self.body(first) + second).mean((2, 3)))


@pytest.mark.parametrize("chunk", [True, False])
def test_a_slice_is_no_shortcut_of_another(chunk: bool) -> None:
    with pytest.raises(UsageError, match="no sites 'residual' in Halves"):
        excite.attach(Halves(chunk), "eca", input_size=(3, 16, 16))


class Dropped(nn.Module):
    """A residual branch whose last part drops it for some images, and so hands its input through."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.conv, self.drop = nn.Conv2d(8, 8, 3, padding=1), StochasticDepth(0.5, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.drop(torch.relu(self.conv(x)))).mean((2, 3)))


def test_a_branch_is_weighed_before_it_is_dropped() -> None:
    torch.manual_seed(0)
    model = Dropped()
    (site,) = excite.attach(model, "eca", input_size=(3, 16, 16)).sites
    assert (site.path, site.place) == ("drop", "before")
    x = torch.randn(16, 3, 16, 16)
    torch.manual_seed(1)
    out = model.train()(x)
    stem = model.stem(x)
    attention = next(m for m in model.drop.modules() if isinstance(m, ChannelAttention))
    torch.manual_seed(1)
    branch = StochasticDepth(0.5, "row")(attention(torch.relu(model.conv(stem))))
    torch.testing.assert_close(out, model.head((stem + branch).mean((2, 3))))
