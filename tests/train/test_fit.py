import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import excite
from captured import capture_compiled
from excite.checkpoints.bundle import load_bundle
from excite.checkpoints.reading import read_checkpoint
from excite.cli.main import main
from excite.cli.train import check_placement
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit
from excite.train.fit import command
from excite.train.module import Classifier, NonFiniteLossError
from imagesets import image_folder

TIMING = {"seconds", "images_per_s", "waiting"}


def tiny(out: Path, **changes) -> TrainConfig:
    base = {"epochs": 2, "batch_size": 16, "limit_train": 48, "limit_val": 20, "workers": 0, "quiet": True, "lr": 0.05}
    return TrainConfig(**{"model": "eca_resnet20", "out": str(out), **base, **changes})


def numbers(rows):
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def weights(path: Path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_run_directory_holds_everything(tmp_path, curves):
    result = fit(tiny(tmp_path / "run"))
    run = tmp_path / "run"
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert float(rows[-1]["val_top1"]) == pytest.approx(result.rows[-1]["val_top1"])
    assert yaml.safe_load((run / "config.yaml").read_text())["limit_train"] == 48
    summary = json.loads((run / "summary.json").read_text())
    assert summary["parameters"] == 269749
    assert 10.0e6 < summary["macs"] < 10.3e6
    assert summary["top1"] == result.top1 == result.rows[-1]["val_top1"]  # the digits hold out one split: the test one
    assert (summary["result"], summary["best"]) == (
        "last epoch on the test split",
        "best epoch on the test split: optimistic",
    )
    assert summary["best_top1"] == max(row["val_top1"] for row in result.rows)
    assert 0 <= summary["waiting"] <= 1
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").glob("events.*"))
    assert len(list((run / "samples").glob("*.png"))) >= 5
    assert {path.name for path in run.glob(".*")} <= {".lock"}  # no half-written file is left
    model, card = load_bundle(run)
    assert card.class_names == list("0123456789")
    assert card.preprocess["size"] == 16
    assert not model.training


def test_learns_the_digits_a_little(tmp_path):
    result = fit(tiny(tmp_path / "run", limit_train=320, limit_val=100, epochs=4, batch_size=32, lr=0.1))
    assert result.rows[-1]["train_loss"] < 0.6 * result.rows[0]["train_loss"]
    assert result.top1 > 0.3


def test_same_seed_same_numbers_other_seed_others(tmp_path):
    first, again, other = (fit(tiny(tmp_path / n, seed=s, epochs=1)) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert numbers(first.rows) == numbers(again.rows)
    assert numbers(first.rows) != numbers(other.rows)


VARIANTS = {
    "plain": {},
    "averaged_and_mixed": {
        "ema": 0.9,
        "mixup": 0.2,
        "cutmix": 1.0,
        "accumulate": 2,
        "clip": 1.0,
        "flip": True,
        "options": {"width": 4},
    },
    "randaugment": {
        "randaugment": 9,
        "label_smoothing": 0.1,
        "warmup_epochs": 1.0,
        "optimizer": "adamw",
        "lr": 1e-3,
        "options": {"width": 4},
    },
    "balanced": {
        "balance": "sampler",
        "loss": "focal",
        "best": "macro_f1",
        "optimizer": "lamb",
        "lr": 1e-3,
        "patience": 3,
        "freeze": ["layer1"],
        "ema": 0.9,
        "options": {"width": 4},
        "accumulate": 2,
    },
    "finetuned": {
        "init": "trained",
        "freeze_backbone_epochs": 1,
        "backbone_lr_factor": 0.3,
        "layer_decay": 0.8,
        "options": {"width": 4},
        "optimizer": "adamw",
        "lr": 1e-3,
        "balance": "loss",
    },
    "dropout": {"options": {"width": 4, "drop_rate": 0.3, "drop_path_rate": 0.3}},
}


def trained(file: Path, **options) -> Path:
    """Write weights that look trained: the norms have moved."""
    model = excite.create_model("eca_resnet20", num_classes=10, **options)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.add_(0.01)
    torch.save(model.state_dict(), file)
    return file


@pytest.mark.parametrize("name", VARIANTS)
def test_interrupted_and_resumed_equals_unbroken(tmp_path, monkeypatch, name):
    """Killed in the middle of the second epoch, and also continued from an end."""
    changes = {"epochs": 2, **VARIANTS[name]}
    if "init" in changes:
        changes["init"] = str(trained(tmp_path / "trained.pt", width=4))
    unbroken = fit(tiny(tmp_path / "a", **changes))
    step = Classifier.training_step

    def killed(self, batch, index):
        if (self.current_epoch, index) == (1, 1):
            raise RuntimeError("power cut")
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", killed)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tiny(tmp_path / "b", **changes))
    monkeypatch.setattr(Classifier, "training_step", step)
    resumed = fit(TrainConfig.from_run(tmp_path / "b"))
    assert numbers(resumed.rows) == numbers(unbroken.rows)
    assert (resumed.top1, resumed.run) == (unbroken.top1, tmp_path / "b")
    found = weights(resumed.last)
    for key, value in weights(unbroken.last).items():
        assert torch.equal(value, found[key]), key
    assert resumed.summary["best_epoch"] == unbroken.summary["best_epoch"]


def test_finished_run_resumed_returns_at_once_and_more_epochs_go_on(tmp_path):
    done = fit(tiny(tmp_path / "run", schedule="constant"))
    before = weights(done.last)
    again = fit(TrainConfig.from_run(tmp_path / "run"))
    assert again.rows == done.rows
    after = weights(again.last)
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    longer = fit(TrainConfig.from_run(tmp_path / "run", epochs=3))
    assert numbers(longer.rows[:2]) == numbers(done.rows)
    assert numbers(longer.rows) == numbers(fit(tiny(tmp_path / "other", schedule="constant", epochs=3)).rows)


def test_resume_before_the_first_checkpoint_starts_anew(tmp_path, monkeypatch):
    step = Classifier.training_step

    def killed(self, batch, index):
        if index == 1:
            raise RuntimeError("power cut")
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", killed)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tiny(tmp_path / "b", epochs=1))
    monkeypatch.setattr(Classifier, "training_step", step)
    resumed = fit(TrainConfig.from_run(tmp_path / "b"))
    assert numbers(resumed.rows) == numbers(fit(tiny(tmp_path / "a", epochs=1)).rows)


def test_keyboard_interrupt_reaches_the_caller(tmp_path, monkeypatch):
    def interrupted(self, batch, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        fit(tiny(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "excite train"),
        ({"data": "imagefolder:my photos"}, "excite train"),
        ({"data": "my data.py:give"}, "excite train --data 'my data.py:give'"),
        ({"data": "my.py:give@val=0.1"}, "excite train --data my.py:give@val=0.1"),
        ({"data": "wds:pipe:cat a.tar"}, "excite train --data 'wds:pipe:cat a.tar'"),
        ({"model": "net.py:make", "data": "my.py:give"}, "excite train net.py:make --data my.py:give"),
        ({"model": "timm/resnet18"}, "excite train"),
    ],
)
def test_the_command_that_goes_on_names_what_no_file_may(changes, words):
    assert command(TrainConfig(**changes)) == words


def test_a_placement_of_attention_that_is_not_there_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "resnet20", "--placement", "first"]) == 2
    assert "resnet20 has no attention of its own; take a name such as eca_resnet20" in capsys.readouterr().err
    assert main(["train", "resnet20", "--placement", "last", "--attach", "eca"]) == 2
    assert "--attach-sites says where --attach puts it" in capsys.readouterr().err
    check_placement(TrainConfig("eca_resnet20", placement="first"))
    check_placement(TrainConfig("resnet20"))
    assert not any(tmp_path.iterdir())


def test_non_finite_loss_stops_names_the_step_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    forward = Classifier.forward

    def poisoned(self, images):
        logits = forward(self, images)
        return logits * float("nan") if self.training and self.global_step == 4 else logits

    monkeypatch.setattr(Classifier, "forward", poisoned)
    with pytest.raises(
        NonFiniteLossError, match=r"step 4 \(epoch 2, batch 2\).*last\.ckpt, written after epoch 1"
    ) as error:
        fit(tiny(tmp_path / "run"))
    assert (error.value.step, error.value.epoch, error.value.exit_code) == (4, 1, 1)
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run/checkpoints/last.ckpt").values())
    monkeypatch.undo()
    assert len(fit(TrainConfig.from_run(tmp_path / "run")).rows) == 2


def test_non_finite_loss_in_the_first_epoch(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"no epoch was completed"):
        fit(tiny(tmp_path / "run", lr=1e30, epochs=1, limit_train=128))


def test_output_directory_that_exists(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    fit(tiny(run, epochs=1))
    with pytest.raises(UsageError, match=r"exists and is not empty.*--resume.*--overwrite"):
        fit(tiny(run, epochs=1))
    assert len(fit(tiny(run, epochs=1, overwrite=True)).rows) == 1
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_text("precious")
    with pytest.raises(UsageError, match="does not look like a run directory"):
        fit(tiny(other, overwrite=True))
    assert (other / "me.jpg").read_text() == "precious"
    with pytest.raises(UsageError, match="is a file"):
        fit(tiny(other / "me.jpg"))


def test_bad_input_leaves_no_directory_behind(tmp_path):
    for changes in ({"model": "eca_resnet21"}, {"data": "digts"}):
        with pytest.raises(UsageError, match="did you mean"):
            fit(tiny(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_default_directory_is_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (fit(replace(tiny(tmp_path), out=None, epochs=1)) for _ in range(2))
    assert (str(first.run), str(second.run)) == ("runs/eca_resnet20-digits", "runs/eca_resnet20-digits-2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "eca_resnet21"}, "unknown model 'eca_resnet21'.*eca_resnet20"),
        ({"data": "digts"}, "unknown data spec 'digts'; did you mean 'digits'"),
        ({"options": {"kernal_size": 3}}, "no option 'kernal_size'; did you mean 'kernel_size'"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"label_smoothing": 1.0}, r"--label-smoothing must be in \[0, 1\)"),
        ({"device": "cuda"}, "finds no GPU"),
        ({"precision": "fp16"}, "--precision fp16 needs a GPU"),
        ({"randaugment": 31}, "--randaugment goes to 30"),
        ({"limit_val": 0}, "--limit-val must be at least 1"),
        ({"resume": "/nowhere"}, "no such run directory"),
        ({"init": "/nowhere.ckpt"}, "/nowhere.ckpt"),
        ({"step_epochs": 0.0}, "--step-epochs"),
    ],
)
def test_wrong_values(tmp_path, changes, message):
    if torch.cuda.is_available() and ("device" in changes or "precision" in changes):
        pytest.skip("valid with a GPU")
    with pytest.raises(UsageError, match=message):
        fit(tiny(tmp_path / "run", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"deterministic": True},
        {"limit_batches": 1},
        {"no_decay": ["norm", "bias", "attention"], "weight_decay": 0.5},
        {"placement": "last", "options": {"kernel_size": "3,5,7"}},
        {"size": 12, "augment": "none"},
        {"augment": "resized-crop", "size": 16},
    ],
    ids=lambda c: next(iter(c)),
)
def test_switches_change_the_run(tmp_path, changes):
    base, changed = fit(tiny(tmp_path / "a", epochs=1)), fit(tiny(tmp_path / "b", epochs=1, **changes))
    one, two = numbers(base.rows), numbers(changed.rows)
    if next(iter(changes)) in ("deterministic", "channels_last"):
        assert one[0]["train_loss"] == pytest.approx(two[0]["train_loss"], rel=1e-3)
    else:
        assert one != two
    load_bundle(tmp_path / "b")


def test_init_state_must_fit_exactly(tmp_path):
    state = read_checkpoint(fit(tiny(tmp_path / "a", epochs=1)).last).weights
    warm = fit(tiny(tmp_path / "b", epochs=1, lr=0.0), init_state=state)
    got = read_checkpoint(warm.last).weights
    assert torch.equal(got["fc.weight"], state["fc.weight"])
    with pytest.raises(ExciteError, match=r"does not fit the network resnet20: .* unknown here \(layer1.0.attention"):
        fit(tiny(tmp_path / "c", model="resnet20"), init_state=state)


def test_unreadable_images_are_named_or_counted(tmp_path):
    root = image_folder(tmp_path / "data")
    (root / "train/cat/1.png").write_text("broken")
    common = {"data": f"imagefolder:{root}", "batch_size": 2, "limit_train": None, "limit_val": None}
    for name, how in (("a", {"size": 32, "resize": 32}), ("b", {"size": 32, "augment": "resized-crop"})):
        with pytest.raises(ExciteError, match=r"train/cat/1\.png.*repair or remove it$"):
            fit(tiny(tmp_path / f"{name}1", epochs=1, **common, **how))
        result = fit(tiny(tmp_path / f"{name}2", epochs=1, skip_unreadable=True, **common, **how))
        assert result.summary["unreadable"] == 1
        assert result.summary["unreadable_names"][0].endswith("train/cat/1.png")


def test_foreign_networks_and_attached_attention(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n\ndef small(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
        " nn.Linear(8, num_classes))\n"
    )
    result = fit(tiny(tmp_path / "a", model=f"{file}:small", epochs=1))
    assert load_bundle(result.run, f"{file}:small")[1].name.endswith("own.py:small")
    fit(tiny(tmp_path / "b", model="torchvision/shufflenet_v2_x0_5", epochs=1, size=32))


def test_a_compiled_run_is_the_same_run(tmp_path, monkeypatch):
    """Its network runs as graphs, in training and in validation, and its weights keep their names."""
    small = {"epochs": 1, "model": "resnet20", "options": {"width": 4, "blocks_per_stage": "1,1,1"}}
    plain = fit(tiny(tmp_path / "plain", **small))
    captured = capture_compiled(monkeypatch)
    result = fit(tiny(tmp_path / "a", compile=True, **small))
    assert any("conv2d" in name for name in captured.operations())
    assert captured.runs >= 4  # three batches of training, one of validation
    assert numbers(result.rows) == [{k: pytest.approx(v, rel=1e-3) for k, v in numbers(plain.rows)[0].items()}]
    assert weights(result.last).keys() == weights(plain.last).keys()
    load_bundle(result.run)


@pytest.mark.slow
def test_two_processes_share_one_run_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "excite", "train", "--devices", "2", "--device", "cpu", "--epochs", "1"]
    subprocess.run([*command, "--limit-train", "130", "--limit-val", "40", "--out", str(run)], check=True)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == 1
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_a_deterministic_run_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    changes = {"epochs": 1, "limit_train": 40, "limit_val": 20, "batch_size": 20, "quiet": True}
    fit(TrainConfig.from_recipe(out=str(tmp_path / "run"), deterministic=True, **changes))
    assert not torch.are_deterministic_algorithms_enabled()
