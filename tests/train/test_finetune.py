"""What learns, when, and how fast."""

from pathlib import Path

import pytest
import torch
from torch import nn

import excite
from excite.checkpoints.loading import load_checkpoint
from excite.cli.main import main
from excite.data import DataBundle
from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess
from excite.engine.optim import make_optimizer
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit
from excite.train.finetune import freeze, hold_norms, is_untrained, lr_factors, parts_of

HOW = Preprocess.for_images_of(32).to_dict()
TINY = {"epochs": 1, "batch_size": 16, "limit_train": 48, "limit_val": 20, "workers": 0, "quiet": True}
TINY |= {"options": {"width": 4}, "logger": "none"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an eca_resnet20 that look trained: the norms have moved."""
    file = tmp_path_factory.mktemp("weights") / "trained.pt"
    model = excite.create_model("eca_resnet20", num_classes=10, width=4)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.add_(0.01)
    torch.save(model.state_dict(), file)
    return file


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("name", "head", "attention"),
    [
        ("eca_resnet20", {"fc.weight", "fc.bias"}, 9),
        ("resnet20", {"fc.weight", "fc.bias"}, 0),
        ("se_mobilenet_v2_cifar", {"classifier.1.weight", "classifier.1.bias"}, None),
        ("torchvision/squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}, 0),
        ("timm/seresnet18", None, None),
        ("timm/mobilenetv3_small_050", {"classifier.weight", "classifier.bias"}, None),
    ],
)
def test_the_parts_of_networks(name: str, head: set[str] | None, attention: int | None) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    if name == "timm/seresnet18":
        name, head = "timm/legacy_seresnet18", {"last_linear.weight", "last_linear.bias"}
    model = excite.create_model(name, num_classes=7)
    parts = parts_of(model, 7)
    assert set(parts.head) == head
    assert len(parts.attention) == attention if attention is not None else parts.attention
    assert {*parts.head, *parts.attention, *parts.backbone} == {n for n, _ in model.named_parameters()}
    factors = lr_factors(parts, TrainConfig(backbone_lr_factor=0.5, layer_decay=0.9))
    named = dict(model.named_parameters())
    rates = [factors[id(named[path])] for path in parts.backbone]
    assert max(rates) == pytest.approx(0.45)
    assert rates[0] == min(rates)  # the stem is farthest from the classifier


def test_rates_fall_block_by_block() -> None:
    model = excite.create_model("eca_resnet20", num_classes=10, width=4)
    parts = parts_of(model, 10)
    factors = lr_factors(parts, TrainConfig(layer_decay=0.5))
    named = dict(model.named_parameters())
    assert factors[id(named["layer3.2.conv2.weight"])] == 0.5
    assert factors[id(named["layer3.1.conv1.weight"])] == 0.25
    assert factors[id(named["conv1.weight"])] == factors[id(named["bn1.bias"])] == 0.5**10
    groups = make_optimizer(model, TrainConfig(lr=1.0, no_decay=["norm"]), factors).param_groups
    assert groups[0]["lr"] == 1.0
    for group in groups:
        assert {group["lr"]} == {factors.get(id(p), 1.0) for p in group["params"]}
    assert sum(len(g["params"]) for g in groups) == len(named)


def test_without_factors_the_groups_are_as_they_were() -> None:
    model = excite.create_model("resnet20", num_classes=10, width=4)
    assert lr_factors(parts_of(model, 10), TrainConfig()) == {}
    assert [len(g["params"]) for g in make_optimizer(model, TrainConfig()).param_groups] == [59]


def test_a_network_without_its_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer with 3 outputs"):
        parts_of(nn.Sequential(nn.Conv2d(3, 4, 3)), 3)


@pytest.mark.parametrize(
    ("patterns", "tensors", "norms"),
    [
        (["conv1"], 1, 0),
        (["conv1", "bn1"], 3, 1),
        (["layer1"], 21, 6),
        (["layer*"], 63, 18),
        (["*.bias"], 20, 0),  # of a norm the weight still learns, so its statistics move
        (["layer1.0.bn?"], 4, 2),
        (["*attention*"], 9, 0),
    ],
)
def test_patterns(patterns: list[str], tensors: int, norms: int) -> None:
    model = excite.create_model("eca_resnet20", num_classes=10, width=4)
    text = freeze(model, patterns)
    assert text.endswith(f"({tensors} of 68 tensors); batch norms that keep their running statistics: {norms}")
    assert sum(not p.requires_grad for p in model.parameters()) == tensors
    model.train()
    hold_norms(model)
    assert sum(not m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)) == norms


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["leyer1"], "--freeze leyer1: no module or parameter of that name; did you mean 'layer1'"),
        (["encoder"], "there are conv1, bn1, layer1, layer2, layer3, fc"),
        (["*"], "leaves nothing to learn"),
        ([""], "no module or parameter"),
    ],
)
def test_patterns_that_cannot_be(patterns: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("*", r"\*")):
        freeze(excite.create_model("resnet20", num_classes=10, width=4), patterns)


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"optimizer": "adamw", "accumulate": 2}], ids=str)
def test_what_is_frozen_stays_to_the_last_bit(tmp_path: Path, trained: Path, more: dict) -> None:
    before = torch.load(trained, weights_only=True)
    result = fit(TrainConfig(out=str(tmp_path / "r"), init=str(trained), freeze=["layer1", "conv1"], **TINY, **more))
    after = {k.removeprefix("model."): v for k, v in weights(result.run).items()}
    same = {k for k, v in before.items() if torch.equal(v, after[k])}
    assert {k for k in before if k.startswith(("layer1.", "conv1."))} <= same
    assert "layer2.0.conv1.weight" not in same
    assert "bn1.running_mean" not in same


def test_the_backbone_waits(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.load(trained, weights_only=True)
    config = TrainConfig.from_recipe("eca_resnet20", "finetune", init=str(trained), out=str(tmp_path / "r"), **TINY)
    config.quiet = False
    result = fit(config)
    told = capsys.readouterr().out
    assert "the backbone (57 tensors) is held for 1 epoch, then learns at 0.5 x lr; fc and attention at lr" in told
    assert "loaded       125 entries" in told
    after = {k.removeprefix("model."): v for k, v in weights(result.run).items()}
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert moved == {k for k in before if k.startswith("fc.") or "attention" in k}
    assert result.summary["recipe"] == "finetune"


def test_bundled_weights_start_a_network_of_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NETWORK.DATA is a checkpoint as any other: CIFAR-10's weights, whose head of ten stays behind."""
    labels = torch.arange(24) % 3
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8)
    data = DataBundle("drawn", ArrayImages(images, labels), ArrayImages(images, labels), ["a", "b", "c"], HOW)
    options = {**TINY, "options": {}, "quiet": False, "out": str(tmp_path / "r"), "data": "drawn"}
    config = TrainConfig.from_recipe("srm_resnet20", "finetune", init="srm_resnet20.cifar10", **options)
    run = fit(config, bundle=data).run
    assert "fc.weight" in capsys.readouterr().out
    before = excite.load("srm_resnet20.cifar10").state_dict()
    after = {k.removeprefix("model."): v for k, v in weights(run).items()}
    assert len(after["fc.weight"]) == 3
    held = [k for k, v in before.items() if not k.startswith("fc.") and torch.equal(v, after[k])]
    assert len(held) > 90  # all of the backbone, in the epoch in which it waits


def test_fresh_weights_are_not_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig.from_recipe("eca_resnet20", "finetune", out=str(tmp_path / "r"), **{**TINY, "quiet": False})
    run = fit(config).run
    assert "weights are fresh, so all of it learns alike" in capsys.readouterr().out
    assert "freeze_backbone_epochs: 0" in (run / "config.yaml").read_text()
    with pytest.raises(UsageError, match=r"--layer-decay 0\.5: the network's weights are fresh"):
        fit(TrainConfig(layer_decay=0.5, out=str(tmp_path / "s"), **TINY))
    assert not (tmp_path / "s").exists()


def test_which_networks_are_fresh() -> None:
    for name in ("eca_resnet20", "torchvision/squeezenet1_1", "torchvision/convnext_tiny"):
        if name != "torchvision/convnext_tiny":
            assert is_untrained(excite.create_model(name, num_classes=3)), name
    model = excite.create_model("resnet20", num_classes=3, width=4)
    model.train()(torch.rand(4, 3, 8, 8))
    assert not is_untrained(model)


def test_a_network_of_ones_own_learns_as_before_afterwards(tmp_path: Path) -> None:
    model = excite.create_model("resnet20", num_classes=10, width=4)
    model.conv1.weight.requires_grad_(False)
    options = {k: v for k, v in TINY.items() if k != "options"}
    excite.fit(model, "digits", "digits", freeze=["layer1"], out=str(tmp_path / "r"), **options)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv1.weight"]


def test_weights_of_another_network_are_no_start(tmp_path: Path) -> None:
    other = excite.create_model("resnet20", num_classes=10, width=8).state_dict()
    counters = {k: v for k, v in other.items() if "num_batches" in k}
    model = excite.create_model("resnet20", num_classes=10, width=4)
    with pytest.raises(
        ExciteError, match=r"not one weight fits .*\(\d+ counters and entries of norms do\).* is \["
    ) as e:
        load_checkpoint(model, other)
    assert "\n" not in str(e.value)
    torch.save(counters, tmp_path / "counters.pt")
    arguments = ["train", "resnet20", "--init", str(tmp_path / "counters.pt"), "--out", str(tmp_path / "r")]
    assert main(arguments) in (1, 2)
    assert not (tmp_path / "r").exists()


def test_nothing_that_learns_is_refused(tmp_path: Path, trained: Path) -> None:
    config = TrainConfig(init=str(trained), freeze=["fc", "*attention*"], freeze_backbone_epochs=1, **TINY)
    with pytest.raises(UsageError, match="nothing learns"):
        fit(config)
