"""What all kinds of runs share: configuration, resuming, the directory, and a process that is left as it was."""

import copy
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from excite.cli.main import main
from excite.cli.signature import argument_help
from excite.detect.config import DetectConfig
from excite.detect.fit import fit as fit_detector
from excite.detect.module import DetectionModule
from excite.engine.config import RunConfig, check_resume, read_run
from excite.engine.module import NonFiniteLossError
from excite.engine.optim import make_optimizer
from excite.engine.optimizers import OWN, check_optimizer, timm_optimizers
from excite.engine.process import VARIABLES
from excite.engine.run import RunDirectory
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit
from excite.train.module import Classifier

KINDS = (TrainConfig, DetectConfig)
# Another valid value of each kind of option.
OTHER = {str: "other", "str | None": "other", bool: True, int: 7, float: 0.25, "int | None": 7}
CHOICES = {
    "placement": "last", "optimizer": "adamw", "schedule": "constant", "precision": "bf16", "device": "cpu",
    "augment": "none", "kind": "retinanet", "neck": "c4", "no_decay": ["norm"], "milestones": [3], "min_size": [77],
    "window": [0.0, 4095.0],
    "lr": 0.25, "loss": "focal", "balance": "sampler", "best": "loss", "logger": "none", "freeze": ["layer1"],
    "non_finite": "skip", "decoder": "pillow", "checkpoint_every": "30m", "strategy": "fsdp",
    "options": {"kernel_size": 3}, "attach_options": {"reduction": 2}, "neck_attention_options": {"reduction": 2},
}  # fmt: skip


def cases() -> list[tuple[type[RunConfig], str]]:
    return [(kind, f.name) for kind in KINDS for f in fields(kind) if f.name not in kind.NOT_RECORDED]


def other(kind: type[RunConfig], name: str) -> object:
    if name in CHOICES:
        return CHOICES[name]
    annotation = next(f.type for f in fields(kind) if f.name == name)
    return OTHER[annotation if annotation in OTHER else str(annotation)]


def recorded_run(config: RunConfig, folder: Path) -> Path:
    RunDirectory(replace(config, out=str(folder))).claim("excite")
    return folder


def tiny(out: Path | None, **changes: object) -> TrainConfig:
    small = {"epochs": 1, "batch_size": 16, "limit_train": 32, "limit_val": 10, "workers": 0, "quiet": True}
    return TrainConfig(out=None if out is None else str(out), **{**small, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_explained(kind: type[RunConfig]) -> None:
    texts: dict[str, str] = {}
    for described in reversed(kind.__mro__[:-1]):  # as --help reads them: what is inherited is explained where it is
        texts |= argument_help(described.__doc__)
    assert [f.name for f in fields(kind) if not texts.get(f.name)] == []
    assert set(texts) <= {f.name for f in fields(kind)}


@pytest.mark.parametrize(("kind", "name"), cases(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_resumed_run_changes_only_how_it_is_computed(kind: type[RunConfig], name: str, tmp_path: Path) -> None:
    """Every option there is: it may change, or is refused by its name."""
    base = kind()
    run = recorded_run(base, tmp_path / "run")
    same = kind.from_run(run)
    check_resume(same)
    value = other(kind, name)
    assert value != getattr(base, name)
    changed = replace(same, **{name: value})
    if name in kind.FREE_ON_RESUME:
        check_resume(changed)
    else:
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} "):
            check_resume(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_may_grow(kind: type[RunConfig], tmp_path: Path) -> None:
    run = recorded_run(kind(epochs=5), tmp_path / "run")
    check_resume(kind.from_run(run, epochs=6))
    with pytest.raises(UsageError, match="--epochs 5; they may only grow, got 4"):
        check_resume(kind.from_run(run, epochs=4))


@pytest.mark.parametrize("command", [("train",), ("detect", "train")])
def test_the_command_refuses_what_a_resumed_run_would_not_use(command: tuple, tmp_path: Path, capsys) -> None:
    kind = TrainConfig if len(command) == 1 else DetectConfig
    run = recorded_run(kind.from_recipe(quiet=True), tmp_path / "run")
    before = (run / "config.yaml").read_text()
    assert main([*command, "--resume", str(run), "--lr", "0.5", "--epochs", "33"]) == 2
    error = capsys.readouterr().err
    assert "--lr" in error
    assert "not 0.5" in error
    assert error.count("\n") == 1
    assert (run / "config.yaml").read_text() == before


def test_a_longer_run_follows_the_schedule_of_its_new_length(tmp_path: Path) -> None:
    fit(tiny(tmp_path / "a", epochs=1))
    longer = fit(TrainConfig.from_run(tmp_path / "a", epochs=3, quiet=True))
    planned = fit(tiny(tmp_path / "b", epochs=3))
    assert [r["lr"] for r in longer.rows[1:]] == [r["lr"] for r in planned.rows[1:]]
    assert longer.rows[0]["lr"] == 0  # the end of the short run's cosine
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["epochs"] == 3


def test_the_first_step_of_a_longer_run_has_the_new_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tiny(tmp_path / "a"))
    rates: list[float] = []
    step = Classifier.training_step

    def noting(self, batch, index):
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", noting)
    fit(TrainConfig.from_run(tmp_path / "a", epochs=2, quiet=True))
    assert rates[0] == pytest.approx(0.05)  # half of a cosine of 0.1, not the zero where the short run ended


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_earlier_versions_are_read(kind: type[RunConfig], tmp_path: Path) -> None:
    values = kind().recorded()
    del values["device"], values["deterministic"]
    for word, precision in (("32", "fp32"), (16, "fp16"), ("bf16", "bf16")):
        former = {"accelerator": "gpu", "limit_train": 0, "limit_val": 0, "precision": word}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**values, **former}))
        read = read_run(kind, tmp_path)
        assert (read["device"], read["limit_train"], read["limit_val"]) == ("cuda", None, None)
        assert read["precision"] == precision
        check_resume(kind.from_run(tmp_path, device="cpu"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit_train": 0}, "--limit-train must be at least 1"),
        ({"limit_val": 0}, "--limit-val must be at least 1"),
        ({"limit_batches": 0}, "--limit-batches must be at least 1"),
        ({"accumulate": 0}, "--accumulate must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"seed": 2**32}, "--seed must be less than"),
        ({"workers": -2}, "--workers must be at least -1"),
        ({"gamma": 0.0}, "--gamma"),
        ({"step_epochs": 0.0}, "--step-epochs"),
        ({"warmup_epochs": 1.0, "warmup_steps": 5}, "exclude each other"),
        ({"resume": "x", "overwrite": True}, "exclude each other"),
        ({"precision": "64"}, "--precision 64: expected one of 'fp32', 'bf16', 'fp16'"),
        ({"optimizer": "adamww"}, "--optimizer adamww: .*did you mean 'adamw'"),
        ({"no_decay": ["norms"]}, "--no-decay norms: .*did you mean 'norm'"),
    ],
)
def test_one_rule_for_both_kinds(kind: type[RunConfig], changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**changes).check()


def test_two_fits_in_one_process_take_two_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")  # as Lightning leaves it behind after a distributed run
    before = dict(os.environ)
    runs = [fit(tiny(None)).run for _ in range(2)]
    assert len(set(runs)) == 2
    assert dict(os.environ) == before


def test_only_the_first_process_makes_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny(None, devices=2)
    first = RunDirectory(config)
    first.claim("excite train")
    assert first.path.is_dir()
    launched = {"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "LOCAL_RANK": "0"}  # by torchrun, on the second machine
    for variables in (launched, {"LOCAL_RANK": "1"}, {"NODE_RANK": "1", "LOCAL_RANK": "0"}, {"NODE_RANK": "1"}):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            follower = RunDirectory(config)
            follower.claim("excite train")
            with pytest.raises(ExciteError, match="does not know its run directory"):
                _ = follower.path
            follower.share(lambda mine: str(first.path))
            assert follower.path == first.path
            # A run of one device is a whole run, whatever launched it.
            alone = RunDirectory(replace(config, devices=1))
            alone.claim("excite train")
            assert alone.path != first.path


@pytest.mark.slow
@pytest.mark.parametrize("external", [True, False], ids=["torchrun", "own"])
def test_two_processes_agree_on_a_directory_without_a_name(tmp_path: Path, external: bool) -> None:
    train = ["excite", "train", "--devices", "2", "--device", "cpu", "--epochs", "1", "--limit-train", "64"]
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29713", "-m"] if external else []
    subprocess.run([sys.executable, "-m", *launcher, *train, "--batch-size", "16"], check=True, cwd=tmp_path)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["eca_resnet20-digits"]
    assert (tmp_path / "runs/eca_resnet20-digits/checkpoints/best.ckpt").is_file()


def state() -> dict[str, object]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "interrupt": signal.getsignal(signal.SIGINT),
    }


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt], ids=["done", "failed", "interrupted"])
def test_a_run_leaves_the_process_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "123")
    before = state()
    if ending is None:
        fit(tiny(tmp_path / "run", deterministic=True, seed=5))
    else:

        def ended(self, batch, index):
            raise ending

        monkeypatch.setattr(Classifier, "training_step", ended)
        with pytest.raises(ending):
            fit(tiny(tmp_path / "run", deterministic=True, seed=5))
    assert state() == before


def test_a_detection_run_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = state()
    options = {"width": 8, "neck_channels": 16, "head_channels": 16, "anchor_sizes": [8, 16, 32, 64]}
    options |= {"stem": "imagenet", "shortcut": "projection", "rpn_post_nms_top_n_test": 20}
    config = DetectConfig(data="shapes:size=64,train=4,val=2", options=options, min_size=[64], max_size=64, epochs=1)
    shared = {"batch_size": 2, "workers": 0, "device": "cpu", "quiet": True, "pictures": 0, "deterministic": True}
    fit_detector(replace(config, out=str(tmp_path / "run"), **shared))
    assert state() == before


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_stops_a_run(loss: float) -> None:
    module = DetectionModule(nn.Identity(), DetectConfig())
    module.watch(torch.tensor(1e30), 0)
    with pytest.raises(NonFiniteLossError, match=r"step 0 \(epoch 1, batch 2, box"):
        module.watch(torch.tensor(loss), 1, {"box": torch.tensor(loss)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_that_is_not_installed_is_said_first(kind: type[RunConfig], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = fit if kind is TrainConfig else fit_detector
    with pytest.raises(UsageError, match=r"needs wandb: pip install 'excite\[trackers\]'"):
        run(kind(logger="wandb", out=str(tmp_path / "r")))
    assert not (tmp_path / "r").exists()


def test_every_optimizer_that_is_offered_takes_a_step_and_goes_on_exactly() -> None:
    pytest.importorskip("timm")
    names = [*OWN, *timm_optimizers()]
    assert {"lamb", "lion", "adan", "muon", "lars"} <= set(names)
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])

    def network() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        return model, make_optimizer(model, TrainConfig(optimizer=name, lr=1e-3, no_decay=["norm"]))

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    for name in names:
        check_optimizer(name, 0.9)
        model, optimizer = network()
        step(model, optimizer)
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        step(model, optimizer)
        other, resumed = network()
        other.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        step(other, resumed)
        for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(one, two), name
        assert not torch.equal(next(model.parameters()), saved[0]["0.weight"]), name


@pytest.mark.parametrize(
    ("name", "momentum", "message"),
    [
        ("lamp", 0.9, "did you mean 'lamb'"),
        ("kron", 0.9, "expected 'sgd', 'adam', 'adamw' or one of timm's"),
        ("fusedadam", 0.9, "did you mean"),
        ("adan", 0.95, "--momentum 0.95: the optimizer adan has none to set"),
    ],
)
def test_optimizers_that_cannot_be(name: str, momentum: float, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=re.escape(message)):
        TrainConfig(optimizer=name, momentum=momentum).check()


def test_a_run_stops_early_and_goes_on_with_more_patience(tmp_path: Path, monkeypatch, capsys) -> None:
    scores = [0.1, 0.3, 0.2, 0.3, 0.2, 0.4, 0.1, 0.2]
    validation = Classifier.validation
    monkeypatch.setattr(
        Classifier, "validation", lambda self: {**validation(self), "val_top1": scores[self.current_epoch]}
    )
    stopped = fit(tiny(tmp_path / "r", epochs=8, patience=2, quiet=False, options={"width": 4}))
    assert len(stopped.rows) == 4  # the second 0.3 is not better
    assert stopped.summary["best_epoch"] == 2
    assert "stopped after epoch 4 of 8: no better score for 2 validations" in capsys.readouterr().out
    again = fit(TrainConfig.from_run(tmp_path / "r", quiet=True))
    assert len(again.rows) == 4
    longer = fit(TrainConfig.from_run(tmp_path / "r", patience=4, epochs=8, quiet=True))
    assert len(longer.rows) == 8
    assert longer.summary["best_epoch"] == 6


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_resumed_run_goes_on_in_its_tracker(tracker: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip(tracker)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    numbers = []
    for out in ("a", "b"):
        fit(tiny(tmp_path / out, logger=tracker, options={"width": 4}))
        numbers.append((tmp_path / out / "logger.json").read_text())
    assert numbers[0] != numbers[1]
    fit(TrainConfig.from_run(tmp_path / "a", epochs=2, quiet=True))
    assert (tmp_path / "a/logger.json").read_text() == numbers[0]
