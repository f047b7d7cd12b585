"""Every option of a training is honoured by a comparison, or refused by name."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from excite import recipes
from excite.cli.main import main
from excite.comparison import collect, run_plan
from excite.comparison.execute import shared_weights
from excite.comparison.plan import Plan, make_plan
from excite.comparison.training import DEFAULTS, UNFIT, UNFIT_VALUES
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.train.config import TrainConfig
from excite.train.network import spec_from

# What a comparison does with every option there is: a value that it honours, or one that it refuses. An option that is
# new must be put here, by somebody who knows whether all variants still start, learn and end alike with it.
HONOURED = {
    "epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 0.05, "momentum": 0.8, "nesterov": True,
    "weight_decay": 1e-3, "no_decay": ["norm"], "schedule": "step", "step_epochs": 2.0, "milestones": [1], "gamma": 0.2,
    "warmup_epochs": 0.5, "warmup_steps": 2, "accumulate": 2, "clip": 1.0, "ema": 0.9, "precision": "bf16",
    "channels_last": True, "compile": True, "device": "cpu", "workers": 1, "deterministic": True, "limit_train": 64,
    "limit_val": 20, "limit_batches": 2, "checkpoint_every": "1steps", "non_finite": "skip", "trace_non_finite": True,
    "grad_norm": True, "logger": "none", "skip_unreadable": True, "freeze": ["conv1"], "focal_gamma": 1.0,
    "balance": "loss", "best": "loss", "label_smoothing": 0.1, "mixup": 0.2, "cutmix": 0.2, "randaugment": 3,
    "val_fraction": 0.2, "test_fraction": 0.2, "size": 16, "resize": 16, "window": [0.0, 255.0], "max_bad": 3,
    "decoder": "pillow", "cache": 0.1, "augment": "none", "padding": 1, "flip": True, "channels": 1,
}  # fmt: skip
NEEDS = {"focal_gamma": {"loss": "focal"}, "max_bad": {"skip_unreadable": True}, "warmup_steps": {"warmup_epochs": 0}}
REFUSED = {
    "pretrained": True, "start": "net.pth", "freeze_backbone_epochs": 1, "backbone_lr_factor": 0.5, "layer_decay": 0.7,
    "patience": 3, "devices": 2, "nodes": 2, "sync_bn": True, "strategy": "fsdp", "loss": "own",
}  # fmt: skip
DECIDED = {
    "model": "resnet32", "data": "cifar10", "recipe": "digits", "seed": 1, "out": "x", "resume": "x", "overwrite": True,
    "quiet": True, "options": {"stem": 3}, "init": "x.pth", "placement": "last", "attach": "se",
    "attach_sites": "layer3", "attach_options": {"reduction": 4},
}  # fmt: skip


def plan(recipe: str = "auto", **train: object) -> Plan:
    return make_plan("none,eca", recipe=recipe, seeds=1, train=train)


def test_each_option_is_decided_on() -> None:
    decided = [*HONOURED, *REFUSED, *DECIDED]
    assert sorted(decided) == sorted(f.name for f in fields(TrainConfig))
    assert {*UNFIT, "loss"} == REFUSED.keys()
    assert {"lr", "loss"} == UNFIT_VALUES.keys()


@pytest.mark.parametrize("name", HONOURED)
def test_options_that_are_honoured(name: str) -> None:
    assert HONOURED[name] != DEFAULTS[name] or name == "lr"
    made = plan(**NEEDS.get(name, {}), **{name: HONOURED[name]})
    made.check()
    config = made.config(made.variants[1], 0, Path("unused"))
    if name.endswith("_fraction"):  # is written into the data
        assert config.data == f"digits@{name.removesuffix('_fraction')}=0.2"
    else:
        assert getattr(config, name) == HONOURED[name]


@pytest.mark.parametrize("name", [*REFUSED, "lr"])
def test_options_that_a_comparison_cannot_honour(name: str) -> None:
    value = {**REFUSED, "lr": "find"}[name]
    with pytest.raises(UsageError, match=rf"^--train\.{name} {value}: ") as error:
        plan(**{name: value}).check()
    assert len(str(error.value)) > 60, "it says why"
    usual = {"lr": 0.1, "loss": "focal"}.get(name, DEFAULTS[name])
    plan(**{name: usual}).check()


@pytest.mark.parametrize("name", DECIDED)
def test_options_that_a_comparison_decides_itself(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--train\.{name}: a comparison decides that itself"):
        make_plan("none,eca", train={name: DECIDED[name]}).check()


def test_the_rate_is_found_by_a_command_that_there_is() -> None:
    with pytest.raises(UsageError, match="`excite train resnet20 --data digits --lr find`"):
        plan(lr="find").check()
    TrainConfig("resnet20", data="digits", lr="find").check()


BACKBONE_OF = {"ecanet-mobilenetv2": "mobilenet_v2"}  # of recipes that set options of their network; else any


@pytest.mark.parametrize("recipe", recipes.names())
def test_recipes_that_come_with_excite(recipe: str) -> None:
    options = dict.fromkeys(("freeze_backbone_epochs", "backbone_lr_factor"), 0) if recipe == "finetune" else {}
    if options:
        with pytest.raises(
            UsageError, match="--recipe finetune sets freeze_backbone_epochs and backbone_lr_factor: all"
        ):
            plan(recipe).check()
        options["backbone_lr_factor"] = 1.0
    made = make_plan("none,eca,eca@sites=stage-ends", BACKBONE_OF.get(recipe, "resnet20"), recipe=recipe, train=options)
    made.check()
    for variant in made.variants:
        spec_from(made.config(variant, 0, Path("unused")), 10).build()


@pytest.mark.parametrize("methods", ["none,eca", "eca,se", "se,eca@sites=stage-ends", "none,eca:kernel_size=3"])
def test_options_of_a_method_in_a_recipe_are_said_of_a_variant(methods: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("options: {kernel_size: [3, 5, 7], drop_rate: 0.1}\nepochs: 2")
    with pytest.raises(UsageError) as refused:
        make_plan(methods, recipe=str(file)).check()
    words = str(refused.value)
    assert words.startswith(f"--recipe {file} sets the option 'kernel_size' of the network, and the backbone resnet20")
    assert words.endswith("say it of a variant, as --methods none,eca:kernel_size=[3,5,7]")
    file.write_text("options: {drop_rate: 0.1}\nepochs: 2")
    made = make_plan(words.rpartition(" ")[2], recipe=str(file))  # as the error says
    made.check()
    assert made.config(made.variants[1], 0, tmp_path).options == {"kernel_size": "3,5,7", "drop_rate": 0.1}


def test_options_of_another_backbone_in_a_recipe() -> None:
    words = (
        "--recipe ecanet-mobilenetv2 sets the option 'dropout' .* the backbone resnet20 has none: .* another backbone"
    )
    for methods in ("none,eca", "none,eca@sites=stage-ends"):
        with pytest.raises(UsageError, match=words):
            make_plan(methods, recipe="ecanet-mobilenetv2").check()
        with pytest.raises(UsageError, match=words):
            make_plan(methods, "mobilenet_v2,resnet20", recipe="ecanet-mobilenetv2").check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: find", "sets lr: each run"),
        ("patience: 3", "sets patience: top-1 is that of the last epoch"),
        ("pretrained: true\nepochs: 2", "sets pretrained: all variants"),
        ("init: net.pth", "sets init: a comparison decides that itself"),
        ("attach: se", "sets attach: a comparison"),
        ("placement: last", "sets placement: a comparison"),
    ],
)
def test_a_recipe_of_ones_own_is_held_to_the_same(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=f"--recipe .*mine.yaml {message}"):
        plan(str(tmp_path / "mine.yaml")).check()


@pytest.mark.parametrize("variants", ["none,eca,eca@sites=stage-ends", "eca,se"])
def test_options_of_the_network_in_a_recipe_are_those_of_all_variants(variants: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("options: {dropout: 0.25, width_mult: 0.5}\nepochs: 2")
    made = make_plan(variants, "mobilenet_v2_cifar", recipe=str(tmp_path / "mine.yaml"), seeds=1)
    made.check()
    networks = [spec_from(made.config(variant, 0, Path("unused")), 10).build() for variant in made.variants]
    assert {network.classifier[0].p for network in networks} == {0.25}
    starts: list[dict[str, torch.Tensor]] = []
    for run, network in zip(made.runs(tmp_path), networks, strict=True):
        plain = NetworkSpec("mobilenet_v2_cifar", 10, options={"width_mult": 0.5}).build().state_dict()
        start = shared_weights(made, run, 10)
        assert {k: v.shape for k, v in start.items()} == {k: v.shape for k, v in network.state_dict().items()}
        assert plain.keys() <= start.keys()
        starts.append({key: start[key] for key in plain})
    assert all(torch.equal(start[key], starts[0][key]) for start in starts for key in start)


def test_nothing_is_left_of_a_comparison_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "--train.pretrained", "true", "--out", str(tmp_path / "c")]) == 2
    assert (
        "--train.pretrained True: all variants of a seed start from the same fresh weights" in capsys.readouterr().err
    )
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_options_that_are_honoured_train(part: int, tmp_path: Path) -> None:
    """Every third of them together, in runs that end."""
    small = {"limit_train": 64, "limit_val": 20, "epochs": 1, "batch_size": 32, "device": "cpu", "workers": 0}
    never = {"compile", "val_fraction", "test_fraction", "device", "workers", "epochs", "batch_size"}
    names = [name for name in HONOURED if name not in never][part::3]
    needs = {key: value for name in names for key, value in NEEDS.get(name, {}).items()}
    train = {**small, **{name: HONOURED[name] for name in names}, **needs}
    train |= {"nesterov": False, "momentum": 0.8} if train.get("optimizer", "sgd") != "sgd" else {}
    run_plan(plan(**train), tmp_path / "c", report=lambda line: None)
    assert collect(tmp_path / "c").complete
