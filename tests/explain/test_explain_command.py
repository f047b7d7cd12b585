"""`excite explain` from end to end, and every bad input with its exit code."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from excite.checkpoints.bundle import save_bundle
from excite.cli.main import main
from excite.explain import open_networks
from excite.models import create_model, describe

PREPROCESS = {"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
NAMES = [str(i) for i in range(10)]


def bundle(folder: Path, name: str, **options: object) -> str:
    torch.manual_seed(0)
    model = create_model(name, num_classes=10, **options)
    describe(model, preprocess=PREPROCESS, class_names=NAMES)
    path = folder / f"{name.replace('/', '-')}.safetensors"
    save_bundle(path, model)
    return str(path)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "seven.png"
    noise = torch.randint(0, 255, (40, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(path)
    return str(path)


def opened(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def test_everything_for_two_networks(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = bundle(tmp_path, "eca_resnet20"), bundle(tmp_path, "emca_eca_resnet20")
    out = tmp_path / "out"
    arguments = [first, picture, "--compare", second, "--data", "digits", "--limit", "20", "--out", str(out)]
    assert main(["explain", *arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [n["model"] for n in result["networks"]] == ["eca_resnet20", "emca_eca_resnet20"]
    for name in ("gradcam", "scales", "weights", "classes", "kernels"):
        width, height = opened(out / f"{name}.png")
        assert width > 300
        assert height > 150
    eca = result["networks"][0]
    assert len(eca["scales"]) == 9
    assert eca["scales"][0]["images"] == 20
    assert len(eca["scales"][0]["scales"]) == 16
    assert {p["kind"] for p in result["networks"][1]["learned"]} == {"kernel", "fusion"}
    assert [c["name"] in NAMES for c in eca["grad_cam"][0]["classes"]] == [True] * 3
    assert json.loads((out / "explain.json").read_text())["networks"] == result["networks"]
    assert not list(out.glob("*partial*"))


def test_plain_network_says_there_is_nothing_else(
    tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call = ["explain", bundle(tmp_path, "resnet20"), picture, "--data", "digits", "--limit", "4", "--out", str(out)]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "no channel attention: Grad-CAM is all there is" in printed
    assert "channel scales over" not in printed
    assert sorted(p.name for p in out.iterdir()) == ["explain.json", "gradcam.png"]


def test_networks_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(bundle(tmp_path, "eca_resnet20"))
    monkeypatch.chdir(tmp_path)
    labels = [n.label for n in open_networks(["eca_resnet20.cifar10", str(file), file.name, file.name])]
    assert labels == [
        "eca_resnet20 (eca_resnet20.cifar10)",
        f"eca_resnet20 ({tmp_path.name}/{file.stem})",
        f"eca_resnet20 ({file.stem})",
        f"eca_resnet20 ({file.stem}) #4",
    ]


def test_one_image_has_no_spread_and_an_earlier_call_leaves_nothing(
    tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, network = tmp_path / "out", bundle(tmp_path, "eca_resnet20")
    assert main(["explain", network, "--data", "digits", "--limit", "12", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.glob("*.png")) == ["classes.png", "kernels.png", "scales.png", "weights.png"]
    (out / "mine.png").touch()
    capsys.readouterr()
    assert main(["explain", network, picture, "--out", str(out)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "layer3.2.attention" in line)
    assert line.split()[-2:] == ["-", "-"]
    names = ["explain.json", "gradcam.png", "kernels.png", "mine.png", "scales.png", "weights.png"]
    assert sorted(p.name for p in out.iterdir()) == names
    (entry,) = json.loads((out / "explain.json").read_text())["networks"]
    assert {s["std_over_images"] for s in entry["scales"]} == {s["class_spread"] for s in entry["scales"]} == {None}


def test_named_classes(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [picture, "--classes", "7", "2", "--out", str(tmp_path / "o"), "--json"]
    assert main(["explain", bundle(tmp_path, "se_resnet20"), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)["networks"][0]["grad_cam"][0]["classes"]
    assert [c["index"] for c in found] == [7, 2]


def test_attached_timm_network(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle(tmp_path, "timm/resnet10t", attach="eca")
    assert main(["explain", path, picture, "--out", str(tmp_path / "o"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["networks"][0]["scales"]) == 4


def test_random_network_says_so(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "random:eca_resnet20", picture, "--out", str(tmp_path / "o")]) == 0
    assert "weights are random" in capsys.readouterr().out


def bad(folder: Path, picture: str) -> dict[str, tuple[list[str], int, str]]:
    good = bundle(folder, "eca_resnet20")
    text = folder / "text.jpg"
    text.write_text("not an image")
    broken = folder / "broken.safetensors"
    broken.write_bytes(b"nothing")
    cut = folder / "cut.png"
    cut.write_bytes(Path(picture).read_bytes()[:400])
    return {
        "nothing to explain": ([good], 2, "does not say what it was trained on; give --data"),
        "not an image": ([good, str(text)], 1, "text.jpg"),
        "truncated image": ([good, str(cut)], 1, "cut.png"),
        "no such image": ([good, "gone.png"], 2, "no image 'gone.png'"),
        "no such checkpoint": (["gone.ckpt", picture], 2, "gone.ckpt"),
        "not a checkpoint": ([str(broken), picture], 1, "broken.safetensors"),
        "image as checkpoint": ([picture, picture], 1, "seven.png"),
        "bad second checkpoint": ([good, picture, "--compare", "gone.ckpt"], 2, "gone.ckpt"),
        "unknown random network": (["random:eca_resnet2000", picture], 2, "eca_resnet200"),
        "unknown data": ([good, "--data", "digit"], 2, "digits"),
        "unknown layer": ([good, picture, "--layer", "layer9"], 2, "layer"),
        "unknown class": ([good, picture, "--classes", "digit x"], 2, "digit x"),
        "class out of range": ([good, picture, "--classes", "10"], 2, "10 classes"),
        "class out of range, no picture": ([good, "--data", "digits", "--classes", "3", "10"], 2, "--classes 10"),
        "no class": ([good, picture, "--top", "0"], 2, "--top"),
        "no images": ([good, "--data", "digits", "--limit", "0"], 2, "--limit"),
        "unknown device": ([good, picture, "--device", "gpuu"], 2, "gpuu"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "nothing to explain",
        "not an image",
        "truncated image",
        "no such image",
        "no such checkpoint",
        "not a checkpoint",
        "image as checkpoint",
        "bad second checkpoint",
        "unknown random network",
        "unknown data",
        "unknown layer",
        "unknown class",
        "class out of range",
        "class out of range, no picture",
        "no class",
        "no images",
        "unknown device",
    ],
)
def test_bad_input(case: str, tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, culprit = bad(tmp_path, picture)[case]
    out = tmp_path / "out"
    assert main(["explain", *arguments, "--out", str(out)]) == code
    assert culprit in capsys.readouterr().err
    assert not out.exists()


def test_an_attention_that_died_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = create_model("eca_resnet20", num_classes=10)
    describe(model, preprocess=PREPROCESS)
    with torch.no_grad():
        model.layer2[1].attention.gate.conv.weight.zero_()
    path = tmp_path / "dead.safetensors"
    save_bundle(path, model)
    given = ["--data", "digits", "--limit", "8", "--out", str(tmp_path / "o"), "--json"]
    assert main(["explain", str(path), *given]) == 0
    (note,) = json.loads(capsys.readouterr().out)["networks"][0]["notes"]
    assert note.startswith("layer2.1.attention multiplies by the same numbers")
