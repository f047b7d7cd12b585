"""Several processes that share a step: each image counts as in one process, and what is held is no trouble."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from excite.train import TrainConfig
from excite.train.losses import ClassificationLoss, class_weights

# Without norms, whose statistics are those of a process: so two processes compute what one does.
PROGRAM = """
import json, sys
import torch
from torch import nn
import excite
from excite.data.bundle import DataBundle
from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess

out, devices = sys.argv[1], int(sys.argv[2])
rng = torch.Generator().manual_seed(0)
labels = torch.tensor([0] * 26 + [1] * 10 + [2] * 4)
images = torch.randint(0, 256, (40, 3, 8, 8), generator=rng, dtype=torch.uint8)
data = DataBundle("drawn", ArrayImages(images, labels), ArrayImages(images[:8], labels[:8]), ["a", "b", "c"],
                  Preprocess.for_images_of(8).to_dict())
more = {
    "loss": {"balance": "loss"},
    "focal": {"balance": "loss", "loss": "focal", "label_smoothing": 0.1},
    "sampler": {"balance": "sampler"},
    "freeze": {"freeze": ["0", "*bias"]},
    "wait": {"freeze_backbone_epochs": 1, "backbone_lr_factor": 0.5, "freeze": ["2.weight"]},
}
results = {}
for name, options in more.items():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(6, 3))
    nn.init.constant_(model[2].bias, 0.01)
    with torch.no_grad():  # a trained network's norm, so that there is something to hold
        model.append(nn.GroupNorm(1, 3)); model[7].bias += 0.01
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = excite.fit(model, data, epochs=2, batch_size=8, devices=devices, device="cpu", augment="none",
                        lr=0.2, out=f"{out}/{name}", logger="none", quiet=True, overwrite=True,
                        **{"freeze_backbone_epochs": 0, "backbone_lr_factor": 1.0, **options})
    after = model.state_dict()
    results[name] = {
        "loss": [row["train_loss"] for row in result.rows],
        "weights": {k: v.flatten().tolist() for k, v in after.items()},
        "same": sorted(k for k in after if torch.equal(before[k], after[k])),
    }
if int(__import__("os").environ.get("RANK", 0)) == 0:
    json.dump(results, open(f"{out}/results.json", "w"))
"""


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29717"]
    results = []
    for devices, before in ((1, []), (2, launcher)):
        out = tmp_path / str(devices)
        out.mkdir()
        subprocess.run([sys.executable, *before, str(tmp_path / "program.py"), str(out), str(devices)], check=True)
        results.append(json.loads((out / "results.json").read_text()))
    for name, one in results[0].items():
        two = results[1][name]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4), name
        for key, values in one["weights"].items():
            assert two["weights"][key] == pytest.approx(values, rel=1e-3, abs=1e-5), (name, key)
        assert two["same"] == one["same"], name
    assert set(results[1]["freeze"]["same"]) == {"0.weight", "0.bias", "2.bias", "6.bias", "7.bias"}
    assert results[1]["wait"]["same"] == ["2.weight"]


@pytest.mark.parametrize("options", [{}, {"loss": "focal"}, {"label_smoothing": 0.1}], ids=str)
def test_class_weights_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=rng)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 0, 2])
    loss = ClassificationLoss(TrainConfig(balance="loss", **options), class_weights(labels, 3))
    leaf = logits.clone().requires_grad_()
    loss(leaf, labels).backward()
    halves = (slice(0, 4), slice(4, 8))
    weights = [loss.weight[labels[half]].sum() for half in halves]
    fake = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: 2,
        all_reduce=lambda value: value.copy_(sum(weights)),
    )
    monkeypatch.setattr("excite.train.losses.distributed", fake)
    shared = logits.clone().requires_grad_()
    for half in halves:  # processes take the mean of their gradients
        (loss(shared[half], labels[half]) / 2).backward()
    torch.testing.assert_close(shared.grad, leaf.grad)
    plain = ClassificationLoss(TrainConfig(**options))
    assert torch.equal(plain(logits, labels), nn.functional.cross_entropy(logits, labels)) or options
