"""Attaching by name: create_model, `excite train`, `excite profile`, `excite bench`, checkpoints."""

import json
from pathlib import Path

import pytest
import torch

import excite
from excite import UsageError
from excite.checkpoints.bundle import load_bundle, save_bundle
from excite.cli.main import main

HOST = """
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.norm(self.conv(x))


def small(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Block(), nn.MaxPool2d(2), Block(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


@pytest.fixture
def host(tmp_path: Path) -> str:
    file = tmp_path / "own.py"
    file.write_text(HOST)
    return f"{file}:small"


def test_created_models_keep_the_report(host: str) -> None:
    model = excite.create_model(host, num_classes=3, attach="se", attach_options={"reduction": 2})
    report = model.excite_attach_report
    assert [s.path for s in report.sites] == ["1.norm", "3.norm"]
    assert report.parameters_added == 2 * (2 * 8 * 4)
    excite.detach(model)
    assert not hasattr(model, "excite_attach_report")
    assert model.excite_card.attach is None
    assert not hasattr(excite.create_model(host), "excite_attach_report")
    with pytest.raises(UsageError, match="name the method with attach"):
        excite.create_model(host, attach_sites="stage-ends")
    with pytest.raises(UsageError, match="cannot hold 'sites'"):
        excite.create_model(host, attach="se", attach_options={"sites": "residual"})


def test_attached_by_hand_saved_and_loaded(host: str, tmp_path: Path) -> None:
    model = excite.create_model(host).eval()
    excite.attach(model, "se", sites=["1.norm"], input_size=(3, 16, 16), reduction=2)
    save_bundle(tmp_path / "a.safetensors", model)
    back, card = load_bundle(tmp_path / "a.safetensors", host)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(back(x), model(x))
    assert card.attach == "se"
    assert card.attach_options == {"reduction": 2, "input_size": [3, 16, 16]}
    excite.detach(model)
    save_bundle(tmp_path / "b.safetensors", model)
    assert torch.equal(load_bundle(tmp_path / "b.safetensors", host)[0](x), model(x))


def test_train_prints_the_report_and_its_checkpoint_has_the_attention(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    short = ["--epochs", "1", "--limit-train", "64", "--limit-val", "32", "--batch-size", "16", "--workers", "0"]
    args = ["train", host, *short, "--attach", "se", "--attach-sites", "3.norm", "--out", str(run)]
    assert main([*args, "--attach-options", '{"reduction": 2}']) == 0
    out = capsys.readouterr().out
    assert "se reduction=2 attached at 1 site" in out
    assert "3.norm" in out
    assert "parameters  +64" in out
    model, card = load_bundle(run, host)
    assert (card.attach, card.attach_sites, card.attach_options) == ("se", "3.norm", {"reduction": 2})
    assert model.get_submodule("3.norm.attention")(torch.ones(1, 8, 2, 2)).shape == (1, 8, 2, 2)
    assert main([*args, "--overwrite", "--quiet"]) == 0
    assert "attached" not in capsys.readouterr().out


def test_profile_takes_sites_and_options(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["profile", host, "--size", "32", "--convention", "macs", "--depth", "0", "--attach", "se"]
    for options in (
        ["--attach-options.reduction", "2"],
        ["--attach-options", '{"reduction": 2, "input_size": [3, 32, 32]}'],
    ):
        assert main([*base, "--attach-sites", "1.norm", *options]) == 0
        out = capsys.readouterr().out
        assert "attached at 1 site" in out
        assert "1.norm" in out
    assert main([*base, "--attach-options.reduction", "4", "--attach-options.input-size", "3,32,32", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values if isinstance(values, list) else values["models"])[0]["attention_params"] == 2 * 2 * 8 * 2


def test_bench_takes_sites_and_options(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["bench", host, "--attach", "eca", "--attach-sites", "stage-ends", "--attach-options.kernel_size", "5"]
    quick = ["--size", "16", "--rounds", "3", "--warmup", "1", "--min-time", "0.001", "--no-memory", "--json"]
    assert main([*args, *quick, "--task", "latency"]) == 0
    assert "small" in capsys.readouterr().out
    assert main(["bench", host, "--attach", "eca", "--attach-options.kernel_sizes", "5", *quick]) == 2
    assert "kernel_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--attach-sites", "stage-ends"], "name the method with attach"),
        (["--attach", "se", "--attach-options", "reduction=2"], "--attach-options.reduction 2"),
        (["--attach", "se", "--attach-options", "{reduction: 2"], "--attach-options.NAME VALUE"),
        (["--attach", "se", "--attach-options.input_size", "224"], "is not .channels, height, width."),
        (["--attach", "se", "--attach-sites", "layer9.*"], "matches no module"),
        (["--attach", "ecaa"], "did you mean"),
    ],
)
def test_bad_input(host: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", host, "--size", "32", *more]) == 2
    assert message.replace(".channels", "(channels").replace("width.", "width)") in capsys.readouterr().err
