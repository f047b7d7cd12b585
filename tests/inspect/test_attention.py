"""One answer to "which modules are attention", asked by the optimizer, the counters, explain and surgery alike."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import excite
from excite.engine.optim import split_parameters
from excite.explain import find_sites
from excite.inspect.attention import (
    WeightRecorder,
    attention_parameters,
    attention_paths,
    channel_weights,
    convolves,
    is_attention,
)
from excite.measure import profile_model
from excite.registry import METHODS, get_method, list_methods

# How many attention modules each foreign network has.
FOREIGN = {
    "timm/seresnet50": 16, "timm/ecaresnet50t": 16, "timm/mobilenetv3_small_100": 9, "timm/regnety_002": 13,
    "timm/resnest14d": 4, "timm/skresnet18": 8, "timm/gcresnet33ts": 10, "timm/seresnext26ts": 8,
    "timm/ese_vovnet19b_dw": 4, "timm/efficientnet_b0": 16, "timm/ghostnet_050": 7, "timm/rexnet_100": 13,
    "timm/tresnet_m": 18, "timm/resnet18": 0, "torchvision/mobilenet_v3_small": 9, "torchvision/efficientnet_b0": 16,
    "torchvision/regnet_y_400mf": 16, "torchvision/resnet18": 0, "torchvision/regnet_x_400mf": 0,
}  # fmt: skip
# Methods that weigh no channels: they add to the map.
WITHOUT_WEIGHTS = {"none", "nl", "a2", "gc", "sse", "sge", "ema"}


def foreign(name: str) -> nn.Module:
    source, _, which = name.partition("/")
    with torch.device("cpu" if which.startswith(("tresnet", "regnet_")) else "meta"):
        return timm.create_model(which) if source == "timm" else torchvision.models.get_model(which, weights=None)


def ours(method: str) -> tuple[nn.Module, int]:
    """A small network with the method, and the side of its images."""
    if get_method(method).role == "conv":
        return excite.create_model(f"{method}_resnet50", num_classes=4, blocks_per_stage=(1, 1, 1, 1)), 64
    name = "resnet20" if method == "none" else f"{method}_resnet20"
    return excite.create_model(name, num_classes=4), 16


def agree(model: nn.Module) -> list[str]:
    """Ask every user for the attention of a network and compare the answers; returns the paths."""
    paths = attention_paths(model)
    names = {name for name, _ in model.named_parameters() if any(name.startswith(f"{path}.") for path in paths)}
    assert set(attention_parameters(model)) == names
    free = {id(p) for p in split_parameters(model, ["attention"])[1]}
    assert {name for name, p in model.named_parameters() if id(p) in free} == names, "the optimizer"
    assert [site.name for site in find_sites(model)] == paths, "explain"
    return paths


def counted(model: nn.Module, side: int, names: dict[str, nn.Parameter]) -> None:
    """The counters and surgery, which run the network."""
    profile = profile_model(model, side)
    assert profile.attention_params == sum(p.numel() for p in names.values()), "the counter"
    seen = {site.path for site in excite.sites(model, input_size=(3, side, side)) if site.kind == "attention"}
    assert seen <= set(attention_paths(model)), "surgery"
    assert all(not convolves(model.get_submodule(path)) for path in seen)


@pytest.mark.parametrize("method", list_methods())
def test_all_users_agree_on_every_method(method: str) -> None:
    model, side = ours(method)
    paths = agree(model)
    blocks = {"between-stages": 2, "network": 3, "conv": 4}.get(get_method(method).role, 9)
    assert len(paths) == (0 if method == "none" else blocks)
    counted(model, side, attention_parameters(model))


@pytest.mark.parametrize("name", FOREIGN)
def test_all_users_agree_on_networks_of_others(name: str) -> None:
    model = foreign(name)
    assert len(agree(model)) == FOREIGN[name]
    assert len(attention_parameters(model)) > 0 or FOREIGN[name] == 0


@pytest.mark.parametrize("name", ["timm/seresnet18", "timm/resnest14d", "timm/skresnet18", "timm/regnety_002"])
def test_counters_and_surgery_agree_on_networks_of_others(name: str) -> None:
    model = timm.create_model(name.removeprefix("timm/"), num_classes=4)
    counted(model, 64, attention_parameters(model))
    report = excite.attach(model, "eca", input_size=(3, 64, 64))
    assert set(report.existing) < set(attention_paths(model)), "what was there and what came"
    assert len(attention_paths(model)) == len(report.existing) + len(report.sites)
    agree(model)


@pytest.mark.parametrize("method", ["se", "cbam", "bam", "emca_eca", "sa"])
def test_attached_attention_is_attention(method: str) -> None:
    model = torchvision.models.resnet18(weights=None, num_classes=4)
    before = {name for name, _ in model.named_parameters()}
    report = excite.attach(model, method, input_size=(3, 64, 64))
    paths = agree(model)
    assert len(paths) == len(report.sites)
    added = {name for name, _ in model.named_parameters()} - before
    assert set(attention_parameters(model)) == added


def test_timm_calls_the_same_modules_attention() -> None:
    from timm.layers import create_attn

    kinds = ["se", "ese", "eca", "ecam", "ceca", "ge", "gc", "gca", "cbam", "lcbam", "coord", "scoord", "ela", "strip"]
    for kind in [*kinds, "sk", "splat", "nl", "bat"]:
        module = create_attn(kind, 64, **({"use_mlp": False} if kind == "ge" else {}))
        assert is_attention(module), kind
        assert convolves(module) == (kind in ("sk", "splat")), kind


class Squeezed(nn.Module):
    """Squeeze and excitation under a name that nobody knows."""

    def __init__(self, channels: int, width: int | None = None, last: nn.Module | None = None) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.first, self.act = nn.Linear(channels, 4), nn.ReLU()
        self.second, self.last = nn.Linear(4, width or channels), last or nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.last(self.second(self.act(self.first(self.pool(x).flatten(1)))))
        return x * w[:, :, None, None]


class Weights(nn.Sequential):
    """The same as a module that returns the weights, used by a block that multiplies."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1))
        self.append(nn.Sigmoid())


def test_structure_is_recognised() -> None:
    wide = nn.Conv2d(8, 8, 3, padding=1)
    assert is_attention(Squeezed(8))
    assert is_attention(Squeezed(8, last=nn.Hardsigmoid()))
    assert is_attention(Weights(8))
    assert not is_attention(Squeezed(8, width=5)), "a head with a sigmoid has other outputs than inputs"
    assert not is_attention(Squeezed(8, last=nn.ReLU()))
    assert not is_attention(nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())), "an autoencoder"
    assert not is_attention(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(8, 8, 1), nn.Sigmoid()))
    head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid())
    assert not is_attention(head), "a convolution over the map, then a pool: a head of several labels"
    assert not is_attention(nn.AdaptiveAvgPool2d(1))
    assert not is_attention(nn.Identity())
    for block in (nn.Sequential(wide, Weights(8)), nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), Squeezed(8))):
        assert attention_paths(block) == [f"{len(block) - 1}"]


def images(n: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["seresnext26ts", "mobilenetv3_small_050", "regnety_002", "eca_resnet33ts"])
def test_weights_of_timm_are_what_its_gates_return(name: str) -> None:
    model = timm.create_model(name, num_classes=4).eval()
    gates: dict[str, torch.Tensor] = {}
    for path in attention_paths(model):
        gate = model.get_submodule(path).gate
        gate.register_forward_hook(lambda m, a, out, path=path: gates.update({path: out.detach().clone()}))
    weights = channel_weights(model, images())
    assert weights.keys() == gates.keys() != set()
    for path, expected in gates.items():
        assert torch.equal(weights[path], expected.flatten(1)), path


@pytest.mark.parametrize(("name", "shape"), [("resnest14d", (3, 128)), ("skresnet18", (3, 128))])
def test_weights_of_competing_branches(name: str, shape: tuple[int, int]) -> None:
    model = timm.create_model(name, num_classes=4).eval()
    weights = channel_weights(model, images())
    assert list(weights) == attention_paths(model)
    first = next(iter(weights.values()))
    assert first.shape == shape
    torch.testing.assert_close(first.reshape(3, 2, -1).sum(1), torch.ones(3, shape[1] // 2))


@pytest.mark.parametrize("kind", ["se", "ese", "eca", "ceca", "cbam", "lcbam", "ge", "gc", "coord"])
def test_weights_of_one_module_of_timm(kind: str) -> None:
    from timm.layers import create_attn

    model = nn.Sequential(nn.Conv2d(3, 16, 3), create_attn(kind, 16, **({"use_mlp": False} if kind == "ge" else {})))
    with torch.no_grad(), WeightRecorder(model) as recorder:
        x = model[0](images())
        y = model(images())
    assert recorder.weights["1"].shape == (3, 16)
    if kind not in ("cbam", "lcbam", "coord"):
        torch.testing.assert_close(x * recorder.weights["1"][:, :, None, None], y)


@pytest.mark.parametrize("module", [Squeezed(8), Weights(8)])
def test_weights_by_structure(module: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), module)
    x = images()
    weights = channel_weights(model, x)["1"]
    with torch.no_grad():
        expected = model(x) / model[0](x) if isinstance(module, Squeezed) else model(x)
    torch.testing.assert_close(weights, expected.mean((2, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in WITHOUT_WEIGHTS])
def test_every_method_that_weighs_channels_shows_its_weights(method: str) -> None:
    model, side = ours(method)
    weights = channel_weights(model.eval(), images(2, 2 * side))
    assert list(weights) == attention_paths(model)
    assert all(w.shape[0] == 2 and w.dim() == 2 and bool(w.isfinite().all()) for w in weights.values())


@pytest.mark.parametrize("method", ["se", "cbam", "coord", "scse", "bam"])
def test_attention_that_starts_as_the_identity_weighs_by_one(method: str) -> None:
    model = excite.create_model(f"{method}_resnet20", num_classes=4, init="identity").eval()
    weights = channel_weights(model, images(2))
    assert list(weights) == attention_paths(model) != []
    assert all(bool((w == 1).all()) for w in weights.values())


@pytest.mark.parametrize("options", [{}, {"form": "released"}, {"form": "released", "same_stage": True}], ids=str)
def test_weights_of_emca_are_those_of_its_modules(options: dict) -> None:
    torch.manual_seed(0)
    model = excite.create_model("emca_eca_resnet20", num_classes=4, **options).eval()
    returned: dict[str, torch.Tensor] = {}
    for path in attention_paths(model):
        module = model.get_submodule(path)

        def weigh(*args: object, path: str = path, inner: Any = module.weights_of) -> torch.Tensor:
            returned[path] = inner(*args)
            return returned[path]

        module.weights_of = weigh
    weights = channel_weights(model, images(2))
    assert weights.keys() == returned.keys() != set()
    for path, expected in returned.items():
        torch.testing.assert_close(weights[path], expected)


@pytest.mark.parametrize("name", [*(f"{m}_resnet20" for m in sorted(WITHOUT_WEIGHTS - {"none"})), "timm/gcresnet33ts"])
def test_attention_that_adds_is_skipped(name: str) -> None:
    model = excite.create_model(name, num_classes=4).eval()
    with torch.no_grad(), WeightRecorder(model) as recorder:
        model(images(2))
    assert recorder.weights == {}
    assert recorder.skipped == set(attention_paths(model)) != set()


def test_attention_attached_to_attention_is_told_apart() -> None:
    model = timm.create_model("seresnet18", num_classes=4).eval()
    excite.attach(model, "eca", input_size=(3, 64, 64))
    weights = channel_weights(model, images(2, 64))
    assert list(weights) == attention_paths(model)
    assert len(weights) == 16
    gates: list[torch.Tensor] = []
    handle = model.layer1[0].se.gate.register_forward_hook(lambda m, a, out: gates.append(out.flatten(1)))
    channel_weights(model, images(2, 64))
    handle.remove()
    assert torch.equal(weights["layer1.0.se"], gates[0])
    assert not torch.equal(weights["layer1.0.se.attention"], gates[0])


def test_weights_of_shuffle_attention_are_what_its_input_is_multiplied_by() -> None:
    attention = excite.create_attention("sa", 16, groups=2)
    with torch.no_grad():
        for p in attention.parameters():
            p.normal_(generator=torch.Generator().manual_seed(p.numel()))
    weights = channel_weights(nn.Sequential(attention), x := torch.rand(2, 16, 5, 5) + 0.5)["0"]
    with torch.no_grad():
        y = attention(x).reshape(2, 8, 2, 25).transpose(1, 2).reshape(2, 16, 25)  # shuffled back
    ratio = y / x.flatten(2)
    torch.testing.assert_close(weights, ratio.mean(2))
