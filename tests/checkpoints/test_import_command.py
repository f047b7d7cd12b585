"""`excite import` from end to end."""

import json
from pathlib import Path

import pytest
import references as ref
import torch

from excite.checkpoints import load_bundle
from excite.cli.main import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "se_resnet20.pth"
    torch.save({"net": {k: v.clone() for k, v in ref.small_se_resnet(3).items()}, "acc": 91.2}, path)
    return path


def test_import_saves_a_network(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.with_name("out.safetensors")
    assert main(["import", str(file), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "senet.pytorch" in text
    assert "se_resnet20 (shortcut='projection')" in text
    model, card = load_bundle(out)
    assert card.name == "se_resnet20"
    assert card.preprocess is not None
    assert card.preprocess["size"] == 32
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert not list(file.parent.glob(".out*"))


def test_recognise_only_and_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "se_resnet20"
    assert report["complete"] is True
    assert report["out"] is None
    assert len(list(file.parent.iterdir())) == 1


def test_class_names(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, out = file.with_name("names.txt"), file.with_name("out.safetensors")
    names.write_text("\n".join(f"class {i}" for i in range(10)))
    assert main(["import", str(file), "-o", str(out), "--class-names", str(names)]) == 0
    assert load_bundle(out)[1].class_names == [f"class {i}" for i in range(10)]
    names.write_text("cat\ndog\n")
    assert main(["import", str(file), "--class-names", str(names)]) == 2
    assert "2 class names; the checkpoint's classifier has 10 outputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["none.pth"], 2, "no file"),
        (["FILE", "-o", "out.pth"], 2, "must end in .safetensors"),
        (["FILE", "-o", "no/such/folder/out.safetensors"], 2, "no folder"),
        (["FILE", "-o", "TAKEN"], 2, "exists"),
        (["FILE", "--output", "x"], 2, "--out"),
        (["BROKEN"], 1, "broken.pth"),
    ],
)
def test_bad_input(file: Path, arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    taken, broken = file.with_name("taken.safetensors"), file.with_name("broken.pth")
    taken.write_bytes(b"")
    broken.write_bytes(b"junk")
    places = {"FILE": file, "TAKEN": taken, "BROKEN": broken}
    assert main(["import", *(str(places.get(a, a)) for a in arguments)]) == code
    assert says in capsys.readouterr().err
