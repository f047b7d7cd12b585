"""Several processes train as one: one pair of gloo processes answers most questions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from pair import finish, free_port, start

from excite.engine.module import gather
from excite.errors import UsageError
from excite.train import TrainConfig, fit

STEPS = 20


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excite.engine.history.draw_curves", lambda rows, panels, path: path.write_bytes(b""))


class Losses(L.Callback):
    """The loss of every step, as the mean over the processes; names of validated images are counted by their labels."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validated = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        parts = gather([float(pl_module.loss)])
        self.losses.append(sum(parts) / len(parts))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated += len(batch[1])

    def on_validation_epoch_end(self, trainer, pl_module):
        self.confusion = int(pl_module.val_confusion.compute().sum())


def config(out: Path | None, **changes) -> TrainConfig:
    base = {"epochs": 2, "batch_size": 8, "limit_train": 84, "limit_val": 7, "workers": 0, "quiet": True, "lr": 0.05}
    small = {"model": "eca_resnet20", "options": {"width": 4, "blocks_per_stage": "1,1,1"}, "logger": "none"}
    return TrainConfig(**{**base, **small, "device": "cpu", "out": None if out is None else str(out), **changes})


def answer(rank: int, folder: Path) -> None:
    """Train with two processes, then go on with what one process began; write down what came out."""
    os.chdir(folder)
    losses = Losses()
    result = fit(config(None, sync_bn=True), callbacks=[losses])
    answers = {"losses": losses.losses, "validated": losses.validated, "confusion": losses.confusion}
    answers |= {"run": str(result.run), "rows": result.rows, "files": sorted(p.name for p in result.run.iterdir())}
    later = fit(TrainConfig.from_run(folder / "alone", epochs=3, quiet=True), callbacks=[losses])
    answers |= {"resumed": later.rows, "norms": type(torch.nn.BatchNorm2d(1)).__name__}
    (folder / f"answer.{rank}").write_text(json.dumps(answers))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("pair")
    alone = Losses()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("excite.engine.history.draw_curves", lambda rows, panels, path: path.write_bytes(b""))
        one = fit(config(folder / "alone", sync_bn=True), callbacks=[alone])
        shutil.copytree(folder / "alone", folder / "copy")
        errors = finish(start(answer, folder), folder)
        assert errors == ["", ""], "\n".join(errors)
        longer = fit(TrainConfig.from_run(folder / "copy", epochs=3, quiet=True))
    first, second = (json.loads((folder / f"answer.{rank}").read_text()) for rank in range(2))
    return {"one": one, "alone": alone, "longer": longer, "first": first, "second": second, "folder": folder}


def test_two_processes_lose_what_one_does(pair) -> None:
    assert len(pair["first"]["losses"]) == len(pair["alone"].losses) + 10 >= STEPS  # ten more of the resumed run
    assert pair["first"]["losses"][:STEPS] == pytest.approx(pair["alone"].losses[:STEPS], abs=1e-5)
    for column in ("train_loss", "train_top1", "val_loss", "val_top1"):
        got, expected = ([row[column] for row in rows] for rows in (pair["first"]["rows"], pair["one"].rows))
        assert got == pytest.approx(expected, abs=1e-4)


def test_seven_images_are_validated_once_each(pair) -> None:
    shares = sorted(pair[name]["validated"] for name in ("first", "second"))
    assert shares == [3 * 2, 4 * 2]  # of two epochs
    assert pair["first"]["confusion"] == pair["second"]["confusion"] == 7


def test_the_processes_have_one_run_directory(pair) -> None:
    assert pair["first"]["run"] == pair["second"]["run"] == "runs/eca_resnet20-digits"
    assert [p.name for p in (pair["folder"] / "runs").iterdir()] == ["eca_resnet20-digits"]
    assert {"config.yaml", "metrics.csv", "summary.json", "checkpoints"} <= set(pair["first"]["files"])


def test_a_run_goes_on_with_another_number_of_processes(pair) -> None:
    for column in ("lr", "train_loss", "val_loss", "val_top1"):
        got, expected = ([row[column] for row in rows] for rows in (pair["first"]["resumed"], pair["longer"].rows))
        assert len(got) == 3
        assert got == pytest.approx(expected, abs=1e-3)


class Ending(L.Callback):
    """Ends the second process as kill -9 does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def lose(rank: int, folder: Path) -> None:
    fit(config(folder / "run"), callbacks=[Ending()])


def test_the_others_stop_when_a_process_is_killed(tmp_path: Path) -> None:
    begun = time.monotonic()
    error, _ = finish(start(lose, tmp_path), tmp_path, 30)
    assert time.monotonic() - begun < 30
    assert "ExciteError: another process of the run ended" in error
    assert f"`excite train --resume {tmp_path / 'run'}`" in error


@pytest.mark.parametrize(("batch", "words"), [(9, "take 8 or 10"), (1, "take 2 or 4")])
def test_a_batch_that_cannot_be_shared_is_refused(batch: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config(None, devices=2, batch_size=batch).check()


SCRIPT = """
import json, os, signal, sys
import lightning as L
from excite.train import TrainConfig, fit

class Ending(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and trainer.global_rank == 1 and trainer.global_step == 14:
            os.kill(os.getpid(), signal.SIGKILL)

small = {"options": {"width": 4, "blocks_per_stage": "1,1,1"}, "logger": "none", "device": "cpu", "workers": 0}
small |= {"limit_train": 84, "limit_val": 7, "quiet": True}
config = TrainConfig(batch_size=8, epochs=2, checkpoint_every="3steps", **small)
result = fit(config, callbacks=[Ending()] if sys.argv[1] == "ending" else [])
print(json.dumps([row["train_loss"] for row in result.rows]) if os.environ["RANK"] == "0" else "", end="")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["c10d", "static"])
def test_torchrun_goes_on_after_a_failure(tmp_path: Path, backend: str) -> None:
    """The second attempt finds the run by the launcher's store, and goes on inside the epoch."""
    (tmp_path / "script.py").write_text(SCRIPT)
    losses = []
    for word in ("ending", "whole"):
        folder = tmp_path / word
        folder.mkdir()
        words = ["--nproc-per-node", "2", "--max-restarts", "1"] + (["--standalone"] if backend == "c10d" else [])
        words += [] if backend == "c10d" else ["--master-port", str(free_port())]
        command = [sys.executable, "-m", "torch.distributed.run", *words, str(tmp_path / "script.py"), word]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert [p.name for p in (folder / "runs").iterdir()] == ["eca_resnet20-digits"]
        losses.append(json.loads(done.stdout.strip().splitlines()[-1]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
