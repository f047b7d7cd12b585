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

import excite
from excite.engine.module import gather
from excite.engine.sharding import blocks, check_shardable
from excite.errors import UsageError
from excite.ops import use
from excite.ops.tail import api
from excite.train import TrainConfig, fit
from excite.train.fit import check_given

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


class Shares(L.Callback):
    """The numbers of the network that this process keeps, and those of its optimizer."""

    def on_train_end(self, trainer, pl_module):
        weights = [p.to_local().numel() for p in pl_module.network.parameters()]
        state = trainer.optimizers[0].state
        momenta = [entry["momentum_buffer"].to_local().numel() for entry in state.values()]
        self.shares = [sum(weights), sum(momenta), sum(p.numel() for p in pl_module.network.parameters())]


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
    losses.losses = []
    fsdp = TrainConfig.from_run(folder / "sharded", epochs=3, quiet=True, strategy="fsdp", grad_norm=True)
    shared = Shares()
    answers |= {
        "sharded": fit(fsdp, callbacks=[losses, shared]).rows,
        "sharded losses": losses.losses,
        "shares": shared.shares,
    }
    (folder / f"answer.{rank}").write_text(json.dumps(answers))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("pair")
    alone = Losses()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("excite.engine.history.draw_curves", lambda rows, panels, path: path.write_bytes(b""))
        one = fit(config(folder / "alone", sync_bn=True), callbacks=[alone])
        for name in ("copy", "sharded"):
            shutil.copytree(folder / "alone", folder / name)
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


def test_processes_that_keep_parts_of_the_network_compute_the_same(pair) -> None:
    """They go on with a run of one process, as the pair with whole networks does; the file that they leave is alike."""
    first = pair["first"]
    assert first["sharded losses"] == pytest.approx(first["losses"][-10:], abs=1e-5)
    for column in ("lr", "train_loss", "val_loss", "val_top1"):
        got, expected = ([row[column] for row in first[name]] for name in ("sharded", "resumed"))
        assert got == pytest.approx(expected, abs=1e-5)
    assert first["sharded"][-1]["grad_norm"] == pair["second"]["sharded"][-1]["grad_norm"] > 0
    shares = [pair[name]["shares"] for name in ("first", "second")]
    for kept in (0, 1):  # weights, momentum
        assert shares[0][kept] + shares[1][kept] == shares[0][2]
        assert max(share[kept] for share in shares) < 0.6 * shares[0][2]
    files = [pair["folder"] / name / "checkpoints/last.ckpt" for name in ("alone", "sharded")]
    whole, parts = (torch.load(file, weights_only=True) for file in files)
    assert list(parts["state_dict"]) == list(whole["state_dict"])
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][key], value, atol=1e-5, rtol=1e-5)
    states = [checkpoint["optimizer_states"][0] for checkpoint in (whole, parts)]
    assert [g["params"] for g in states[0]["param_groups"]] == [g["params"] for g in states[1]["param_groups"]]
    for number, entry in states[0]["state"].items():
        torch.testing.assert_close(
            states[1]["state"][number]["momentum_buffer"], entry["momentum_buffer"], atol=1e-5, rtol=1e-4
        )
    assert set(parts["excite"]) == set(whole["excite"])


SHARDED = {
    "plain": {},
    "clipped": {"clip": 1.0, "no_decay": ["norm", "attention"], "optimizer": "adamw", "lr": 0.002},
    "skipping": {"non_finite": "skip", "accumulate": 2, "mixup": 0.2},
    "bf16": {"precision": "bf16"},
    "bottlenecks": {"model": "eca_resnet50", "options": {}, "size": 32, "limit_batches": 3},
    "multi-scale": {"model": "emca_se_resnet20", "checkpoint_every": "4steps"},
    "attached": {"model": "torchvision/resnet18", "options": {}, "attach": "eca", "size": 32, "limit_batches": 3},
}


def both(rank: int, folder: Path) -> None:
    """Train each of the cases with whole networks and with parts, without synchronised norms, on fused kernels."""
    answers: dict[str, tuple[list[float], int]] = {}
    tail, tails = api.fused_tail, []

    def counted(*parts, **more):
        tails.append(1)
        return tail(*parts, **more)

    api.fused_tail = counted
    for name, changes in SHARDED.items():
        for strategy in ("ddp", "fsdp"):
            losses = Losses()
            tails.clear()
            with use("fused"):
                fit(config(folder / f"{name}-{strategy}", strategy=strategy, epochs=1, **changes), callbacks=[losses])
            answers[f"{name}-{strategy}"] = losses.losses, len(tails)
    (folder / f"answer.{rank}").write_text(json.dumps(answers))


@pytest.mark.slow
def test_parts_of_many_networks(tmp_path: Path) -> None:
    assert finish(start(both, tmp_path), tmp_path, 500) == ["", ""]
    answers = json.loads((tmp_path / "answer.0").read_text())
    for name in SHARDED:
        (expected, fused), (losses, also_fused) = (answers[f"{name}-{strategy}"] for strategy in ("ddp", "fsdp"))
        assert len(losses) >= 3
        assert losses == pytest.approx(expected, abs=1e-2 if name == "bf16" else 1e-5), name
        assert also_fused == fused > 0, name
        run = tmp_path / f"{name}-fsdp"
        networks = [excite.load(tmp_path / f"{name}-{strategy}") for strategy in ("ddp", "fsdp")]
        for (key, one), two in zip(networks[0].state_dict().items(), networks[1].state_dict().values(), strict=True):
            torch.testing.assert_close(one, two, atol=2e-2 if name == "bf16" else 1e-4, rtol=1e-3, msg=f"{name} {key}")
        later = fit(TrainConfig.from_run(run, epochs=2, devices=1, strategy="ddp", quiet=True))
        assert len(later.rows) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 1}, "give --devices 2 or more"),
        ({"ema": 0.9}, "--ema needs the whole network"),
        ({"compile": True}, "--compile needs the whole"),
        ({"channels_last": True}, "--channels-last needs the whole"),
        ({"freeze_backbone_epochs": 1}, "--freeze-backbone-epochs needs the whole"),
        ({"start": "a.pth"}, "--resume FILE needs the whole"),
        ({"precision": "fp16"}, "fp32 or bf16"),
        ({"optimizer": "lamb"}, "takes --optimizer sgd, adam, adamw; got lamb"),
    ],
)
def test_what_a_network_in_parts_cannot_have_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config(None, **{"devices": 2, "strategy": "fsdp", **changes}).check()


def test_networks_that_have_no_parts_are_refused() -> None:
    network = torch.nn.Linear(2, 2)
    network.scale = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(UsageError, match="cannot share scale, which is a single number"):
        check_shardable(network)
    with pytest.raises(UsageError, match="for networks by name"):
        check_given(config(None, devices=2, strategy="fsdp"), network, None)
    tree = torch.nn.ModuleDict(
        {"body": torch.nn.Sequential(torch.nn.Sequential(Part(), Part()), Part()), "head": Part()}
    )
    assert [name for name, part in tree.named_modules() if any(part is block for block in blocks(tree))] == [
        "body.0.0", "body.0.1", "body.1",
    ]  # fmt: skip


class Part(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


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
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        assert [p.name for p in (folder / "runs").iterdir()] == ["eca_resnet20-digits"]
        losses.append(json.loads(done.stdout.strip().splitlines()[-1]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
