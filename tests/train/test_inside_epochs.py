"""Checkpoints inside epochs: a run that was ended there goes on to the same bits. Steps that are not finite."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from excite.data import open_data
from excite.data.shards import write_shards
from excite.engine.config import Interval, interval
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit
from excite.train.module import NonFiniteLossError
from imagesets import image_folder

TIMING = {"seconds", "images_per_s", "waiting"}
SMALL = {"model": "eca_resnet20", "options": {"width": 4, "blocks_per_stage": "1,1,1"}, "logger": "none"}


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excite.engine.history.draw_curves", lambda rows, panels, path: path.write_bytes(b""))


def config(out: Path, **changes) -> TrainConfig:
    base = {"epochs": 2, "batch_size": 4, "limit_train": 36, "limit_val": 7, "workers": 0, "quiet": True, "lr": 0.05}
    return TrainConfig(**{**base, **SMALL, "device": "cpu", "out": str(out), **changes})


class StopError(Exception):
    """Stands for the end of a process."""


class EndAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise StopError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    image_folder(folder / "images", per_class=20)
    spec = f"imagefolder:{folder / 'images'}"
    write_shards(open_data(spec), folder / "shards", shard_size=7)
    return {"folder": spec, "wds": f"wds:{folder / 'shards'}", "stream": f"hfds:{folder / 'images'}?stream,buffer=8"}


CASES = {
    "cached": {"ema": 0.99, "mixup": 0.2, "grad_norm": True},
    "dropout": {"accumulate": 2, "batch_size": 2, "non_finite": "skip"},
    "folder": {"data": "folder", "size": 32, "augment": "resized-crop", "ema": 0.9, "flip": True},
    "wds": {"data": "wds", "size": 32, "augment": "resized-crop", "optimizer": "adamw", "lr": 0.001},
    "stream": {"data": "stream", "size": 32, "augment": "crop", "flip": True, "ema": 0.9},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(16, 10))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "end", [5, pytest.param(14, marks=pytest.mark.slow)]
)  # in the first epoch of nine or so steps, in the second
def test_a_run_goes_on_inside_an_epoch_to_the_same_bits(tmp_path, folders, case: str, end: int) -> None:
    changes = dict(CASES[case])
    if changes.get("data") in folders:
        changes["data"] = folders[changes["data"]]
    more = {"network": network()} if case == "dropout" else {}
    whole = fit(config(tmp_path / "whole", **changes), **more)
    more = {"network": network()} if case == "dropout" else {}
    with pytest.raises(StopError):
        fit(config(tmp_path / "run", checkpoint_every="2steps", **changes), callbacks=[EndAt(end)], **more)
    assert (tmp_path / "run/checkpoints/step.ckpt").is_file()
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file() == (end > 9)
    result = fit(TrainConfig.from_run(tmp_path / "run", quiet=True, checkpoint_every=None), **more)
    untimed = [[{k: v for k, v in row.items() if k not in TIMING} for row in r.rows] for r in (whole, result)]
    assert untimed[0] == untimed[1]
    expected, got = (torch.load(r.last, weights_only=True)["state_dict"] for r in (whole, result))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert not (tmp_path / "run/checkpoints/step.ckpt").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30m", (1800, None)), ("1000s", (1000, None)), ("2h", (7200, None)), ("500steps", (None, 500))],
)
def test_intervals(text: str, expected: tuple[int | None, int | None]) -> None:
    assert interval(text) == Interval(*expected)


@pytest.mark.parametrize("text", ["", "0s", "30", "-1s", "1.5h", "steps", "m30", "1 day"])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="checkpoint-every"):
        interval(text)


def test_a_damaged_checkpoint_inside_an_epoch_is_named(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        fit(config(tmp_path / "run", checkpoint_every="2steps"), callbacks=[EndAt(5)])
    file = tmp_path / "run/checkpoints/step.ckpt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ExciteError, match=r"cannot go on from .*step.ckpt: .*; `rm .*step.ckpt` goes back"):
        fit(TrainConfig.from_run(tmp_path / "run", quiet=True))
    file.unlink()
    assert len(fit(TrainConfig.from_run(tmp_path / "run", quiet=True)).rows) == 2


class Spoil(L.Callback):
    """Makes the images of some batches infinite, or a gradient."""

    def __init__(self, *batches: int, gradient: bool = False) -> None:
        self.batches, self.gradient = batches, gradient

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now = batch_idx in self.batches
        module = pl_module.network.get_submodule("conv1")
        if self.now and not self.gradient:
            self.handle = module.register_forward_hook(lambda layer, inputs, output: output * float("inf"))

    def on_after_backward(self, trainer, pl_module):
        if self.now and not self.gradient:
            self.handle.remove()
        elif self.now:
            pl_module.network.get_parameter("conv1.weight").grad[0] = float("nan")


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path: Path, gradient: bool) -> None:
    result = fit(config(tmp_path / "run", non_finite="skip", epochs=1), callbacks=[Spoil(2, 5, gradient=gradient)])
    assert result.rows[0]["skipped"] == 2
    state = torch.load(result.last, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert torch.isfinite(torch.tensor(result.rows[0]["train_loss"]))


def test_a_step_that_is_skipped_leaves_no_trace(tmp_path: Path) -> None:
    before = {}

    class Compare(Spoil):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            before[batch_idx] = {name: value.clone() for name, value in pl_module.network.state_dict().items()}

    fit(config(tmp_path / "run", non_finite="skip", epochs=1), callbacks=[Compare(2)])
    assert all(torch.equal(before[2][name], before[3][name]) for name in before[2])
    assert not all(torch.equal(before[3][name], before[4][name]) for name in before[3])


@pytest.mark.parametrize(
    ("gradient", "words"),
    [(False, r"first not finite: the output of bn1 \(BatchNorm2d\)"), (True, "the gradient of conv1.weight")],
    ids=["loss", "gradient"],
)
def test_the_layer_where_it_began_is_named(tmp_path: Path, gradient: bool, words: str) -> None:
    with pytest.raises(NonFiniteLossError, match=words):
        fit(config(tmp_path / "run", trace_non_finite=True, epochs=1), callbacks=[Spoil(2, gradient=gradient)])


def test_steps_are_not_skipped_for_ever(tmp_path: Path) -> None:
    changes = {"non_finite": "skip", "batch_size": 1, "limit_batches": 30, "epochs": 1, "model": "eca_resnet20"}
    with pytest.raises(ExciteError, match="25 steps in a row were not finite"):
        fit(config(tmp_path / "run", **{**changes, "batch_size": 2, "limit_train": 60}), callbacks=[Spoil(*range(30))])
