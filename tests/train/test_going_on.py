"""excite train --resume FILE: what of another script's training goes on: weights, epoch, optimizer."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoints"))
import references as ref

import excite
from excite.checkpoints.resume import go_on, network_options
from excite.cli.main import main
from excite.engine.optim import lr_factor
from excite.errors import UsageError
from excite.train.config import TrainConfig
from excite.train.fit import fit

State = dict[str, torch.Tensor]
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def drawn(like: State) -> State:
    """Weights of the shapes of a reference, under which numbers stay finite."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in like.items():
        if not value.is_floating_point():
            state[key] = value.clone()
        elif value.dim() > 1:
            state[key] = torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        else:
            state[key] = torch.rand(value.shape, generator=generator) + 0.5
    return state


def stepped(
    state: State, kind: type = torch.optim.SGD, unused: tuple[str, ...] = (), **settings: Any
) -> dict[str, Any]:
    """The state of an optimizer over a network of these weights, after two steps."""
    generator = torch.Generator().manual_seed(1)
    named = {k: nn.Parameter(v.clone()) for k, v in state.items() if not k.endswith(BUFFERS)}
    optimizer = kind(named.values(), lr=0.1, **settings)
    for _ in range(2):
        for key, parameter in named.items():
            parameter.grad = None if key in unused else torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer.state_dict()


def as_ecanet(state: State, epoch: int, **settings: Any) -> dict[str, Any]:
    """What ECA-Net's main.py saves (and PyTorch's ImageNet example, after which it was written)."""
    settings = {"momentum": 0.9, "weight_decay": 1e-4, **settings}
    return {
        "epoch": epoch,
        "arch": "eca_resnet18",
        "state_dict": {f"module.{k}": v for k, v in state.items()},
        "best_prec1": torch.tensor([70.5]),
        "optimizer": stepped(state, **settings),
    }


def as_emca(state: State, epoch: int) -> dict[str, Any]:
    """What EMCA's script saves; the layers that its first blocks never use have no momentum."""
    unused = tuple(k for k in state if ".0.ECA_excitation_global" in k or ".0.stage_in_fusion" in k)
    return {
        "epoch": epoch,
        "arch": "resnet18",
        "state_dict": {f"module.{k}": v for k, v in state.items()},
        "best_acc1": torch.tensor(68.0),
        "optimizer": stepped(state, unused=unused, momentum=0.9, weight_decay=1e-4),
    }


@pytest.fixture(scope="module")
def weights() -> State:
    return drawn(ref.resnet(18, ref.eca((3, 3, 5, 7)), depths=(1, 1, 1, 1), classes=10))


@pytest.fixture
def file(weights: State, tmp_path: Path) -> Path:
    torch.save(as_ecanet(weights, 2), tmp_path / "checkpoint.pth.tar")
    return tmp_path / "checkpoint.pth.tar"


def network(file: Path) -> nn.Module:
    options = network_options(file)
    return excite.create_model(str(options["model"]), num_classes=10, **options["options"])


def test_momenta_find_their_parameters(file: Path, weights: State) -> None:
    model = network(file)
    start = go_on(model, file, "sgd", 5)
    assert start.epochs == 2
    assert set(start.state) == {name for name, _ in model.named_parameters()}
    content = torch.load(file, weights_only=True)
    keys = [k for k in weights if not k.endswith(BUFFERS)]
    for number, theirs, ours in (
        (keys.index("layer2.0.eca.conv.weight"), "layer2.0.eca.conv.weight", "layer2.0.attention.gate.conv.weight"),
        (keys.index("fc.bias"), "fc.bias", "fc.bias"),
    ):
        buffer = content["optimizer"]["state"][number]["momentum_buffer"]
        assert torch.equal(start.state[ours]["momentum_buffer"].flatten(), buffer.flatten()), theirs
    text = "\n".join(start.notes)
    assert "training goes on with epoch 3" in text
    assert "left aside: arch, best_prec1" in text


def test_emcas_files_go_on(tmp_path: Path) -> None:
    state = drawn(ref.emca(18, lambda s, b: s + 1, classes=10))
    torch.save(as_emca(state, 7), tmp_path / "model_best.pth.tar")
    model = network(tmp_path / "model_best.pth.tar")
    start = go_on(model, tmp_path / "model_best.pth.tar", "sgd", 100)
    assert start.epochs == 7
    assert start.state
    assert set(start.state) == {name for name, _ in model.named_parameters()}


def test_training_goes_on(file: Path, weights: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first step has 0.9 of the momentum of the file more than without it; epoch and rate are the fourth ones."""
    words = ["--data", "digits", "--epochs", "4", "--limit-train", "32", "--limit-val", "16", "--batch-size", "32"]
    words += ["--recipe", "digits", "--schedule", "step", "--step-epochs", "3", "--lr", "0.01", "--workers", "0"]
    bare = {k: v for k, v in as_ecanet(weights, 3).items() if k != "optimizer"}
    torch.save(bare, tmp_path / "bare.pth")
    torch.save(as_ecanet(weights, 3), file)
    momenta = {}
    for name in (file.name, "bare.pth"):
        run = tmp_path / f"run-{name}"
        assert main(["train", "--resume", str(tmp_path / name), "--out", str(run), *words]) == 0, capsys.readouterr()
        said = capsys.readouterr().out
        assert "going on from" in said
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["epoch"] == 3
        assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.001)
        momenta[name] = checkpoint["optimizer_states"][0]["state"][0]["momentum_buffer"]
        rows = (run / "metrics.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == ["4"]
    first = as_ecanet(weights, 3)["optimizer"]["state"][0]["momentum_buffer"]
    torch.testing.assert_close(momenta[file.name] - momenta["bare.pth"], 0.9 * first, rtol=1e-3, atol=1e-3)
    # The run is a run: it goes on as any other, without the file.
    file.unlink()
    run = tmp_path / f"run-{file.name}"
    assert main(["train", "--resume", str(run), "--epochs", "5", "--quiet"]) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 4


def test_schedule_of_the_epochs_to_come(file: Path) -> None:
    config = TrainConfig(epochs=10, schedule="cosine")
    assert lr_factor(config, 2 * 7, 7) == pytest.approx(lr_factor(config, 2, 1))


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "groups": ({"param_groups": [{"params": [0]}, {"params": [1]}]}, "in 2 groups"),
    "count": ({"param_groups": [{"params": [0, 1]}]}, "it has 2 parameters"),
    "damaged": ({"state": [1]}, "it is damaged"),
    "no step": ({"state": {}}, "has not taken a step"),
}


@pytest.mark.parametrize("name", list(ODD))
def test_optimizers_that_do_not_fit_are_left_aside(name: str, weights: State, tmp_path: Path) -> None:
    change, words = ODD[name]
    content = as_ecanet(weights, 2)
    content["optimizer"] = {**content["optimizer"], **change}
    torch.save(content, tmp_path / "x.pth")
    start = go_on(network(tmp_path / "x.pth"), tmp_path / "x.pth", "sgd", 5)
    assert not start.state
    assert any(words in note for note in start.notes), start.notes


def test_buffers_of_other_shapes_and_optimizers(weights: State, tmp_path: Path) -> None:
    content = as_ecanet(weights, 2)
    content["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(3)
    torch.save(content, tmp_path / "x.pth")
    model = network(tmp_path / "x.pth")
    assert any(
        "momentum_buffer of conv1.weight is [3]" in note for note in go_on(model, tmp_path / "x.pth", "sgd", 5).notes
    )
    content["optimizer"] = stepped(weights, torch.optim.AdamW)
    torch.save(content, tmp_path / "x.pth")
    assert any("another optimizer than sgd" in note for note in go_on(model, tmp_path / "x.pth", "sgd", 5).notes)
    assert go_on(model, tmp_path / "x.pth", "adamw", 5).state["fc.bias"].keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_what_cannot_go_on(file: Path, weights: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"has trained 2 epochs; --epochs must be more"):
        go_on(network(file), file, "sgd", 2)
    with pytest.raises(UsageError, match=r"does not fill the network.*--init"):
        go_on(excite.create_model("eca_resnet18", num_classes=3, blocks_per_stage="1,1,1,1"), file, "sgd", 9)
    timms = {"epoch": 4, "arch": "x", "version": 2, "state_dict": weights}
    torch.save(timms, tmp_path / "t.pth")
    assert go_on(network(file), tmp_path / "t.pth", "sgd", 9).epochs == 5  # numbered from 0
    torch.save(weights, tmp_path / "w.pth")
    start = go_on(network(file), tmp_path / "w.pth", "sgd", 9)
    assert (start.epochs, start.state) == (0, {})
    assert main(["train", "--resume", str(file), "--init", str(file), "--quiet"]) == 2
    with pytest.raises(UsageError):
        fit(TrainConfig(start=str(file), init=str(file)))
