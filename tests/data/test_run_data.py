"""Every command finds the data of a run by itself, says which it was, and refuses data with other classes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from excite.checkpoints.bundle import save_bundle
from excite.cli.main import main
from excite.models import NetworkSpec
from imagesets import image_folder

CLASSES = ["cat", "dog"]
LAYOUTS = ["run directory", "checkpoint", "bundle"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run on a folder of photos in all layouts, the folder, and another one whose classes have other names."""
    folder = tmp_path_factory.mktemp("run")
    photos = image_folder(folder / "photos")
    others = image_folder(folder / "others")
    for split in ("train", "val"):
        (others / split / "cat").rename(others / split / "bird")
    how = {"size": 16, "resize": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    spec = NetworkSpec("eca_resnet20", 2, options={"width": 4}, class_names=CLASSES, preprocess=how)
    torch.manual_seed(0)
    model = spec.build()
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    content = {
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "excite": spec.to_dict(),
        "excite_config": {"data": f"imagefolder:{photos}"},
    }
    torch.save(content, run / "checkpoints" / "best.ckpt")
    save_bundle(run / "weights.safetensors", model)
    gone = {**content, "excite_config": {"data": f"imagefolder:{folder}/gone"}}
    torch.save(gone, folder / "gone.ckpt")
    unnamed = replace(spec, class_names=None).build()
    save_bundle(folder / "unnamed.safetensors", unnamed)
    return {
        "run directory": str(run),
        "checkpoint": str(run / "checkpoints" / "best.ckpt"),
        "bundle": str(run / "weights.safetensors"),
        "gone": str(folder / "gone.ckpt"),
        "unnamed": str(folder / "unnamed.safetensors"),
        "photos": f"imagefolder:{photos}",
        "others": f"imagefolder:{others}",
        "image": str(next(photos.rglob("*.png"))),
    }


def command(verb: str, checkpoint: str, out: Path) -> list[str]:
    return {
        "test": ["test", checkpoint, "--out", str(out)],
        "explain": ["explain", checkpoint, "--out", str(out)],
        "robustness": ["robustness", checkpoint, "--corruptions", "fog", "--severities", "1", "--out", str(out)],
        "export": ["export", checkpoint, "--format", "torch-export", "--out", str(out / "x.pt2")],
    }[verb]


VERBS = ["test", "explain", "robustness", "export"]


# Eight bits are made for a run directory always; a checkpoint is read in the same way by the other verbs.
OWN = [
    pytest.param(layout, verb, marks=pytest.mark.slow if (layout, verb) == ("checkpoint", "export") else ())
    for layout in LAYOUTS
    for verb in VERBS
]


@pytest.mark.parametrize(("layout", "verb"), OWN)
def test_own_data(
    verb: str, layout: str, places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(verb, places[layout], tmp_path / "out")
    if verb == "export":  # only 8 bits need data, and take their own
        if layout != "bundle":
            pytest.importorskip("nncf")
        arguments = ["export", places[layout], "--precision", "int8", "--out", str(tmp_path / "x.onnx")]
    code = main([*arguments, "--json"])
    said = capsys.readouterr()
    if layout == "bundle":
        assert code == 2
        assert "does not say what it was trained on; give --data SPEC" in said.err
        return
    assert code == 0
    result = json.loads(said.out)
    assert (result["data"], result["split"]) == (places["photos"], "val")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("layout", ["run directory", "bundle"])
def test_given_data(
    verb: str, layout: str, places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(verb, places[layout], tmp_path / "out")
    assert main([*arguments, "--data", places["photos"], "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["data"], result["split"]) == (places["photos"], "val")
    for spec, culprit in ((places["others"], "'cat' there is 'bird' here"), ("digits", "digits has 10")):
        out = tmp_path / "refused"
        assert main([*command(verb, places[layout], out), "--data", spec]) == 2
        error = capsys.readouterr().err
        assert culprit in error
        assert "--data SPEC" in error
        assert not out.exists()


@pytest.mark.parametrize("verb", ["test", "explain", "robustness"])
def test_data_that_is_gone(
    verb: str, places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(verb, places["gone"], tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "was trained on imagefolder:" in error
    assert "name the data with --data SPEC" in error


def test_a_network_without_names_is_held_to_their_number(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", places["unnamed"], "--data", places["others"], "--out", str(tmp_path)]) == 0
    assert main(["test", places["unnamed"], "--data", "digits", "--out", str(tmp_path)]) == 2
    assert "knows 2 classes, digits has 10" in capsys.readouterr().err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_predicting_needs_no_data(layout: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", places[layout], places["image"], "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["predictions"]
    assert {guess["class"] for guess in row["classes"]} == set(CLASSES)


def test_networks_of_different_data_need_one_named(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robustness", places["run directory"], places["gone"], "--out", str(tmp_path / "o")]) == 2
    assert "trained on different data" in capsys.readouterr().err
