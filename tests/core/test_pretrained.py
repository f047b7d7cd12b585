"""Networks that start from trained weights: torchvision's and timm's caches, and what is said where they are empty."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision

import excite
from excite.checkpoints import save_bundle
from excite.errors import ExciteError, UsageError
from excite.models import spec_of
from excite.pretrained import bundled, bundled_card, bundled_file


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvision_weights_come_from_its_cache(torch_home: Path) -> None:
    torch.manual_seed(1)
    trained = torchvision.models.squeezenet1_1()
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    torch.save(trained.state_dict(), torch_home / Path(weights.url).name)
    model = excite.create_model("torchvision/squeezenet1_1", pretrained=True, attach="eca", attach_sites="all-blocks")
    assert torch.equal(model.features[0].weight, trained.features[0].weight)
    spec = spec_of(model)
    assert spec.num_classes == 1000
    assert spec.class_names is not None
    assert spec.class_names[0] == "tench"
    assert spec.preprocess == {"size": 224, "resize": 256, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    fewer = excite.create_model("torchvision/squeezenet1_1", pretrained="IMAGENET1K_V1", num_classes=7)
    assert torch.equal(fewer.features[3].squeeze.weight, trained.features[3].squeeze.weight)
    assert fewer(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert spec_of(fewer).class_names is None


def test_timm_weights_come_from_the_cache_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    torch.manual_seed(1)
    trained = timm.create_model("test_resnet")
    config = timm.get_pretrained_cfg("test_resnet")
    folder = tmp_path / f"models--timm--{config.architecture}.{config.tag}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(trained.state_dict(), snapshot / "model.safetensors")
    model = excite.create_model("timm/test_resnet", pretrained=True, num_classes=5)
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in trained.state_dict().items() if not k.startswith("fc"))
    assert (model.excite_card.preprocess["size"], model.num_classes) == (config.input_size[-1], 5)
    with pytest.raises(ExciteError, match="could not be fetched") as error:
        excite.create_model("timm/test_vit", pretrained=True)
    assert str(tmp_path) in str(error.value)


def test_without_a_network_one_line_names_file_and_folder(torch_home: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "download_url_to_file", no_network)
        with pytest.raises(ExciteError, match=r"squeezenet1_1.*could not be fetched.*\.pth into") as error:
            excite.create_model("torchvision/squeezenet1_1", pretrained=True)
    assert str(torch_home) in str(error.value)


def test_what_there_is_not() -> None:
    with pytest.raises(UsageError, match="IMAGENET1K_V1"):
        excite.create_model("torchvision/resnet18", pretrained="IMAGENET")
    with pytest.raises(UsageError, match=r"no weights of 'eca_resnet20' trained on 'cifar' come with excite"):
        excite.create_model("eca_resnet20", pretrained="cifar")
    with pytest.raises(UsageError, match="no weights of 'gct_resnet110' come with excite"):
        excite.create_model("gct_resnet110", pretrained=True)


def test_bundled_weights_fill_the_network_and_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    from excite import pretrained

    torch.manual_seed(1)
    trained = excite.create_model("eca_resnet20", num_classes=3)
    card = {**spec_of(trained).to_dict(), "class_names": ["a", "b", "c"]}
    card["preprocess"] = {"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    (tmp_path / "drawn").mkdir()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    save_file(halves, tmp_path / "drawn" / "eca_resnet20.safetensors", metadata={"excite": json.dumps(card)})
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert pretrained.bundled() == {"drawn": ["eca_resnet20"]}
    for which in ("drawn", True):
        model = excite.create_model("eca_resnet20", pretrained=which)
        assert model.fc.weight.dtype == torch.float32
        torch.testing.assert_close(model.fc.weight, trained.fc.weight, rtol=1e-3, atol=1e-4)
        assert spec_of(model).class_names == ["a", "b", "c"]
        assert spec_of(model).preprocess == card["preprocess"]
    more = excite.create_model("eca_resnet20", pretrained="drawn", num_classes=11)
    torch.testing.assert_close(more.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    assert more.fc.weight.shape[0] == 11
    with pytest.raises(UsageError, match="do not fit this network"):
        excite.create_model("eca_resnet20", pretrained="drawn", width=8)
    with pytest.raises(UsageError, match="3 channels, not 1"):
        excite.create_model("eca_resnet20", pretrained="drawn", in_channels=1)
    with pytest.raises(UsageError, match="num_classes"):
        excite.create_model("resnet20", num_classes=-1)


def test_parts_of_bundled_networks_and_timms_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    import excite.timm
    from excite import pretrained
    from excite.cli.main import main

    torch.manual_seed(1)
    trained = excite.create_model("eca_resnet20", num_classes=3).half().float()
    how = {"size": 24, "resize": 32, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}
    facts = {"recipe": "short", "seed": 3, "test": {"top1": 0.9125, "top5": 0.995}}
    card = {**spec_of(trained).to_dict(), "class_names": ["a", "b", "c"], "preprocess": how, "trained": facts}
    (tmp_path / "drawn").mkdir()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    save_file(halves, tmp_path / "drawn" / "eca_resnet20.safetensors", metadata={"excite": json.dumps(card)})
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    x = torch.randn(2, 3, 24, 24)
    trained.eval()
    for name in ("eca_resnet20", "excite_eca_resnet20", "eca_resnet20.drawn"):
        model = timm.create_model(name, pretrained=True).eval()
        assert torch.equal(model(x), trained(x))
        config = timm.data.resolve_data_config({}, model=model)
        assert (config["input_size"], config["crop_pct"], config["mean"]) == ((3, 24, 24), 0.75, (0.5, 0.4, 0.3))
        assert model.num_classes == 3
    fewer = timm.create_model("eca_resnet20", pretrained=True, num_classes=7).eval()
    assert fewer(x).shape == (2, 7)
    levels = trained.forward_levels(x, (1, 2, 3))
    maps = timm.create_model("eca_resnet20", pretrained=True, features_only=True, out_indices=(1, 2)).eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, levels, strict=False))
    headless = excite.create_model("eca_resnet20", pretrained="drawn", num_classes=0).eval()
    assert torch.equal(headless(x), levels[-1].mean((2, 3)))
    with pytest.raises(UsageError, match="no weights of 'gct_resnet110' come with excite"):
        timm.create_model("gct_resnet110", pretrained=True)
    assert main(["list", "checkpoints"]) == 0
    listed = capsys.readouterr().out
    assert "eca_resnet20.drawn" in listed
    assert "91.25 / 99.50" in listed
    assert main(["list", "checkpoints", "eca_resnet20*", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["load"] == 'excite.create_model("eca_resnet20", pretrained="drawn")'


def test_weights_within_excite_are_taken_by_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image
    from safetensors.torch import save_file

    from excite import pretrained
    from excite.checkpoints import reading
    from excite.cli.main import main

    trained = excite.create_model("eca_resnet20", num_classes=10, in_channels=1)
    card = {**spec_of(trained).to_dict(), "class_names": list("0123456789"), "trained": {"data": "digits"}}
    card["preprocess"] = {"size": 16, "resize": 16, "mean": [0.5], "std": [0.25]}
    (tmp_path / "within" / "drawn").mkdir(parents=True)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    file = tmp_path / "within" / "drawn" / "eca_resnet20.safetensors"
    save_file(halves, file, metadata={"excite": json.dumps(card)})
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "within")
    monkeypatch.setattr(reading, "FOLDER", tmp_path / "within")
    monkeypatch.chdir(tmp_path)
    Image.new("L", (16, 16), 90).save("image.png")
    name = "eca_resnet20.drawn"
    assert excite.load(name).fc.weight.dtype == torch.float32
    for words in (
        ["test", name, "--limit", "5"],
        ["predict", name, "image.png"],
        ["explain", name, "image.png", "--classes", "3", "--out", "seen"],
        ["export", name, "--format", "torch-export", "--out", "net.pt2"],
        ["bench", name, "--rounds", "3", "--warmup", "1", "--min-time", "0", "--size", "16", "--task", "latency"],
        ["robustness", name, "--limit", "4", "--corruptions", "brightness", "--severities", "1", "--out", "robust"],
    ):
        assert main(words) == 0, (words, capsys.readouterr().err)
    quick = ["--rounds", "3", "--warmup", "1", "--min-time", "0", "--size", "16", "--task", "latency", "--json"]
    capsys.readouterr()
    for others in (["eca_resnet20"], ["net.pt2"]):
        assert main(["bench", name, *others, *quick]) == 0
        assert json.loads(capsys.readouterr().out)["settings"]["input_shape"] == [1, 1, 16, 16]
    save_bundle(tmp_path / "colour.safetensors", excite.create_model("eca_resnet20", num_classes=10))
    for others, code, culprit in (
        (["colour.safetensors"], 2, f"{name} takes 1 channels, colour.safetensors 3; "),
        (["--in-channels", "3"], 1, "(1, 3, 16, 16)"),
    ):
        assert main(["bench", name, *others, *quick]) == code
        assert culprit in capsys.readouterr().err
    # What is made of them goes to runs/, never beside them.
    assert (tmp_path / "runs" / name / "confusion.png").is_file()
    assert list((tmp_path / "within").rglob("*.*")) == [file]
    capsys.readouterr()
    assert main(["test", "eca_resnet20.drwan"]) == 2
    assert "weights that come with excite (eca_resnet20.drawn)" in capsys.readouterr().err


@pytest.mark.parametrize("tag", [f"{name}.{data}" for data, names in bundled().items() for name in names])
def test_weights_that_come_with_excite(tag: str) -> None:
    """Small, finite, and with a card that says how they came to be and how good they are."""
    file = bundled_file(tag)
    assert file is not None
    assert file.stat().st_size < 700_000
    name, _, data = tag.rpartition(".")
    model = excite.create_model(name, pretrained=data).eval()
    logits = model(torch.randn(2, 3, 32, 32))
    assert torch.isfinite(logits).all()
    trained = bundled_card(name, data)["trained"]
    assert trained["test"]["images"] == 10_000
    assert trained["test"]["top1"] > 0.84  # of a short recipe; CBAM has 84.84 %, less than the plain network
    assert (
        trained["command"] == f"excite train {name} --recipe {trained['recipe']} --data {data} --seed {trained['seed']}"
    )
    assert torch.equal(excite.load(tag)(torch.ones(1, 3, 32, 32)), model(torch.ones(1, 3, 32, 32)))
