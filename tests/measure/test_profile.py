"""Profiles: numbers, places, memory, and what goes wrong."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from excite.cli.main import main
from excite.errors import ExciteError, UsageError
from excite.measure import profile_model
from excite.measure.names import builder, parse_size
from excite.measure.profile import input_shape, profile_named
from excite.measure.report import select_rows, to_csv, to_json
from excite.models import create_model


def meta_profile(name: str, *conventions: str, side: int = 64, **options: object):
    return profile_named(name, builder(name, options, 1000, 3), (1, 3, side, side), conventions or ("macs",))


def test_parameters_and_attention_share() -> None:
    profile = meta_profile("eca_resnet50", kernel_size="3,5,5,7")
    assert (profile.params, profile.trainable, profile.attention_params) == (25557112, 25557112, 80)
    plain = meta_profile("resnet50")
    assert plain.attention_params == 0
    assert profile.macs["macs"] - plain.macs["macs"] == profile.attention_macs["macs"] > 0


@pytest.mark.parametrize(("name", "share"), [("timm/seresnet50", 28088024 - 25557032), ("se_resnet50", 2514944)])
def test_attention_of_foreign_networks_is_found(name: str, share: int) -> None:
    assert meta_profile(name).attention_params == share


def test_trainable_parameters_leave_out_frozen_ones() -> None:
    model = create_model("resnet18")
    model.fc.requires_grad_(False)
    assert profile_model(model, 32).trainable == 11689512 - 513000


def test_rows_sum_to_the_total() -> None:
    profile = meta_profile("se_resnet18", "macs", "thop-2005")
    stages = select_rows(profile, 1)
    assert [r.path for r in stages] == [n for n, _ in create_model("se_resnet18").named_children()]
    for convention in ("macs", "thop-2005"):
        assert sum(r.counts[convention] for r in stages) == profile.macs[convention]
        assert sum(r.counts[convention] for r in select_rows(profile, -1)) == profile.macs[convention]
    assert sum(r.params for r in stages) == profile.params
    assert sum(r.attention_params for r in stages) == profile.attention_params
    assert sum(r.activations for r in stages) == profile.activations
    assert next(r for r in stages if r.path == "layer4").output == (1, 512, 2, 2)


def test_weights_are_neither_moved_nor_changed() -> None:
    model = create_model("eca_resnet18").train()
    model.bn1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    profile = profile_model(model, 64)
    assert profile.device == "meta"
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.device.type == "cpu" for p in model.parameters())
    assert model.training
    assert not model.bn1.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_same_counts_with_real_weights_and_without() -> None:
    assert profile_model(create_model("emca_se_resnet18"), 64).macs == meta_profile("emca_se_resnet18").macs


def test_nothing_is_allocated_for_a_named_network() -> None:
    model = {}

    def build() -> nn.Module:
        model["it"] = create_model("resnet50")
        return model["it"]

    profile_named("resnet50", build, (1, 3, 64, 64), ("macs",))
    assert all(t.is_meta for t in [*model["it"].parameters(), *model["it"].buffers()])


def test_attention_keeps_no_map_of_its_own_alive() -> None:
    plain, eca, emca = (meta_profile(n, side=224).peak_bytes for n in ("resnet50", "eca_resnet50", "emca_eca_resnet50"))
    assert 0 < eca - plain <= 4 * 512  # the weights of one block and what they come from, no map
    assert 0 < emca - plain <= 4 * 1024  # and descriptors of earlier blocks


def test_peak_memory_of_a_chain() -> None:
    # 1x1 convolutions 3 -> 8 -> 16 -> 4 on 10x10: at the widest place 8 and 16 channels are alive, with the input.
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1))
    assert profile_model(model, 10).peak_bytes == 4 * 100 * (8 + 16 + 3)


def test_activations_are_outputs_of_convolutions_and_products() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(800, 5))
    assert profile_model(model, 10).activations == 800 + 5


class NeedsNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum().item() > 1e9:
            raise ValueError("unreachable")
        return self.fc(x.mean((2, 3)))


def test_a_network_that_needs_numbers_runs_on_its_device() -> None:
    assert profile_model(NeedsNumbers(), 8).device == "cpu"
    named = profile_named("x.py:f", NeedsNumbers, (1, 3, 8, 8), ("macs",))
    assert named.macs["macs"] == 6
    assert "needs real numbers" in named.notes[0]


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(7, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x))


def test_the_failing_layer_is_named() -> None:
    model = Broken()
    with pytest.raises(ExciteError, match=r"layer 'body\.1' \(Conv2d\) on an input of shape \(1, 3, 16, 16\)"):
        profile_model(model, 16)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ExciteError, match="layer 'stem'"):
        profile_model(model, 2)


def test_a_network_without_parameters() -> None:
    with pytest.raises(UsageError, match="no parameters"):
        profile_model(nn.ReLU(), 8)


@pytest.mark.parametrize("text", ["0", "-3", "12x0", "abc", "12x", ""])
def test_impossible_sizes(text: str) -> None:
    with pytest.raises(UsageError, match=r"size .*at least 1 pixel|is none"):
        parse_size(text)


def test_sizes() -> None:
    assert (parse_size("224"), parse_size("800x1280"), parse_size("8x64x64")) == (224, (800, 1280), (8, 64, 64))
    assert input_shape((4, 5), 2, 3) == (3, 2, 4, 5)
    with pytest.raises(UsageError, match="at least 1"):
        input_shape(8, 0)


def test_json_and_csv_agree() -> None:
    profile = meta_profile("eca_resnet18", "macs", "thop")
    model = json.loads(to_json([profile], 1))["models"][0]
    rows = list(csv.DictReader(io.StringIO(to_csv([profile], 1))))
    assert model["params"] == int(rows[0]["params"]) == profile.params
    assert model["params_mebi"] == pytest.approx(profile.params / 2**20)
    assert len(model["rows"]) == len(rows) - 1 > 5
    assert int(rows[0]["thop"]) == sum(int(r["thop"]) for r in rows[1:]) == profile.macs["thop"]


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    command = ["profile", "eca_resnet50", "--options.kernel_size", "3,5,5,7", "--convention", "thop-1907"]
    assert main([*command, "--csv", str(table)]) == 0
    text = capsys.readouterr().out
    assert "24.373" in text
    assert "3.863" in text
    assert table.read_text().startswith("model,input,layer,kind,output,params,attention_params,activations,thop-1907\n")
    assert main(["profile", "resnet18", "--json", "--depth", "-1", "--size", "32"]) == 0
    model = json.loads(capsys.readouterr().out)["models"][0]
    assert set(model["macs"]) == {"macs", "fvcore", "thop-1907", "thop-2005", "thop", "mmcv"}
    assert {r["path"] for r in model["rows"]} >= {"layer1.0.conv1", "fc"}


def test_command_takes_a_factory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\ndef net(num_classes=7):\n    return nn.Sequential(nn.Conv2d(3, num_classes, 1))\n"
    )
    assert main(["profile", f"{file}:net", "--num-classes", "5", "--size", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["macs"]["macs"] == 5 * 3 * 16


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["resnet18", "--convention", "flops"], 2, "unknown convention 'flops'"),
        (["resnet18", "--size", "0"], 2, "at least 1 pixel"),
        (["resnet1b"], 2, "unknown model 'resnet1b'"),
        (["torchvision/alexnet", "--size", "20"], 1, "forward failed in layer 'features.5' (MaxPool2d)"),
        (["resnet18", "--options.nonsense", "1"], 2, "no option 'nonsense'"),
        (["resnet18", "--csv", "/proc/nowhere/x.csv"], 1, "cannot write"),
    ],
)
def test_bad_input(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *arguments]) == code
    assert words in capsys.readouterr().err
