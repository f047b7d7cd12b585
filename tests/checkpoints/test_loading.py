"""load_checkpoint: partial matches and their account; our own files; the cosine basis of FcaNet."""

from pathlib import Path

import pytest
import references as ref
import timm
import torch
import torchvision

import excite
from excite.checkpoints import save_bundle
from excite.checkpoints.layouts.spectrum import frequencies_of
from excite.checkpoints.reading import read_checkpoint
from excite.errors import ExciteError
from excite.methods.fcanet import frequency_pairs
from excite.spectral import Spectral


def test_base_weights_into_a_network_with_new_attention() -> None:
    theirs = torchvision.models.resnet18(num_classes=1000)
    model = excite.create_model("eca_resnet18", num_classes=10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = excite.load_checkpoint(model, theirs.state_dict())
    after = model.state_dict()
    assert torch.equal(after["layer3.1.conv2.weight"], theirs.state_dict()["layer3.1.conv2.weight"])
    assert sorted(report.fresh) == sorted(k for k in before if ".attention." in k)
    assert report.mismatched == {"fc.weight": ((1000, 512), (10, 512)), "fc.bias": ((1000,), (10,))}
    assert len(report.loaded) + len(report.fresh) + len(report.mismatched) == len(before)
    assert not report.complete
    for key in (*report.fresh, *report.mismatched):
        assert torch.equal(after[key], before[key])
    text = str(report)
    assert "layer*.*.attention.gate.conv.weight (8)" in text
    assert "fc.weight: [1000, 512] in the file, [10, 512] in the model" in text


def test_a_family_into_a_given_network() -> None:
    state = {
        k: torch.full_like(v, 0.5) if v.is_floating_point() else v.clone() for k, v in ref.resnet(18, ref.se()).items()
    }
    model = excite.create_model("se_resnet18")
    report = excite.load_checkpoint(model, {"state_dict": {f"module.{k}": v for k, v in state.items()}})
    assert report.complete
    assert "senet.pytorch" in report.layout
    assert float(model.layer1[0].attention.gate.reduce.weight.mean()) == 0.5


def test_foreign_models_load_too() -> None:
    source, target = timm.create_model("resnet18"), timm.create_model("resnet18", num_classes=3)
    report = excite.load_checkpoint(target, source.state_dict())
    assert list(report.mismatched) == ["fc.weight", "fc.bias"]
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_the_backbone_of_a_detector() -> None:
    state = {
        f"backbone.{k}": v.clone() for k, v in ref.resnet(18, ref.eca((3, 3, 5, 7))).items() if not k.startswith("fc.")
    }
    model = excite.create_model("eca_resnet18", kernel_size="3,3,5,7")
    report = excite.load_checkpoint(model, {**state, "neck.conv.weight": torch.zeros(4, 4)})
    assert report.fresh == ["fc.weight", "fc.bias"]
    assert report.ignored == {"neck.conv.weight": "outside 'backbone.'"}


def test_nothing_fits() -> None:
    model = excite.create_model("eca_resnet20", num_classes=10)
    with pytest.raises(ExciteError, match="not one entry fits"):
        excite.load_checkpoint(model, {"embedding.weight": torch.zeros(3, 3)})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("se_resnet20", {"placement": "first", "num_classes": 7}),
        ("emca_eca_resnet20", {"form": "released"}),
        ("emca_se_resnet18_cifar", {"stages": "all", "blocks": 1}),
        ("cbam_resnet18_cifar", {"reduction": 8}),
        pytest.param("emanet50_cifar", {}, marks=pytest.mark.slow),
        ("eca_mobilenet_v2", {"width_mult": 0.5, "num_classes": 4}),
        ("se_resnet20", {"placement": "last", "num_classes": 7}),
        ("gct_resnet20", {}),
        ("bam_resnet18_cifar", {}),
    ],
)
def test_our_own_files_with_and_without_a_card(tmp_path: Path, name: str, options: dict) -> None:
    torch.manual_seed(0)
    model = excite.create_model(name, **options).eval()
    save_bundle(tmp_path / "a.safetensors", model)
    again, report = excite.import_checkpoint(tmp_path / "a.safetensors")
    assert (report.complete, report.model) == (True, name)
    assert again.excite_card.options == model.excite_card.options
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x), again(x))
        if name == "bam_resnet18_cifar":
            return  # its two ways to combine cannot be told from weights
        bare, report = excite.import_checkpoint(model.state_dict())
        assert report.model == name
        assert torch.equal(model(x), bare(x))


def test_the_sources_of_the_papers_form_are_read_off() -> None:
    model = excite.create_model("emca_eca_resnet20", stages=2, blocks=1)
    _, report = excite.import_checkpoint(model.state_dict())
    assert report.options == {"kernel_size": 3, "form": "paper", "stages": "all", "blocks": 1}


@pytest.mark.parametrize("selection", ["top16", "low8", "bot4", "top1"])
@pytest.mark.parametrize("size", [7, 14])
def test_frequencies_are_read_off_the_basis(selection: str, size: int) -> None:
    pairs = frequency_pairs(selection)
    basis = Spectral(pairs, (size, size)).basis.view(len(pairs), size, size).repeat_interleave(64 // len(pairs), 0)
    assert frequencies_of({"layer1.0.att.dct_layer.weight": basis}, "none") == selection


def test_other_frequencies_are_refused() -> None:
    basis = Spectral([(1, 1), (2, 2)], (7, 7)).basis.view(2, 7, 7).repeat_interleave(8, 0)
    with pytest.raises(ExciteError, match="none of its published selections: 11 22"):
        frequencies_of({"layer1.0.att.dct_layer.weight": basis}, "top16")


def test_ema_weights_beside_are_mentioned() -> None:
    state = {"fc.weight": torch.zeros(2, 2)}
    weights = read_checkpoint({"state_dict": state, "state_dict_ema": state})
    assert any("averaged" in note for note in weights.notes)
