"""Before the work, not after it: targets that cannot be written, bad seeds, data and networks that cannot fit."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excite.checkpoints import save_bundle
from excite.cli.main import main
from excite.common.files import check_writable
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec

HOW = {"size": 16, "resize": 16, "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("targets")
    names = list("0123456789")
    spec = NetworkSpec("eca_resnet20", 10, options={"width": 4}, class_names=names, preprocess=HOW)
    save_bundle(root / "net.safetensors", spec.build(), spec)
    torch.save({"net." + k: v for k, v in spec.build().state_dict().items()}, root / "plain.pth")
    Image.new("RGB", (16, 16)).save(root / "a.png")
    (root / "file").write_text("x")
    return root


FOLDERS = [
    ["test", "NET", "--data", "digits", "--out"],
    ["explain", "NET", "IMAGE", "--out"],
    ["robustness", "NET", "--data", "digits", "--out"],
    ["compare", "--out"],
    ["train", "--epochs", "1", "--out"],
    ["detect", "train", "--epochs", "1", "--out"],
    ["detect", "predict", "NET", "IMAGE", "--out"],
    ["detect", "test", "NET", "--data", "shapes", "--out"],
]
FILES = [
    ["export", "NET", "--out"],
    ["import", "PLAIN", "--out"],
    ["bench", "resnet20", "--input-size", "32", "--out"],
    ["bench", "resnet20", "--input-size", "32", "--plot"],
    ["profile", "resnet20", "--input-size", "32", "--csv"],
    ["tables", "senet", "--out"],
]
ENDINGS = {"export": ".onnx", "import": ".safetensors", "--plot": ".png", "--csv": ".csv"}


@pytest.mark.parametrize("words", [*FOLDERS, *FILES], ids=lambda w: f"{w[0]}{w[-1]}{len(w)}")
def test_what_cannot_be_written_is_said_first(
    words: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"NET": place / "net.safetensors", "PLAIN": place / "plain.pth", "IMAGE": place / "a.png"}
    command = [str(known.get(word, word)) for word in words]
    ending = ENDINGS.get(words[0], ENDINGS.get(words[-1], ""))
    (tmp_path / f"folder{ending}").mkdir()
    targets = [place / f"file/below/x{ending}", f"/proc/no/x{ending}", f"/dev/null/x{ending}", f"{'x' * 300}{ending}"]
    targets += [place / "file"] if words in FOLDERS else [tmp_path / f"folder{ending}"]
    for target in targets:
        assert main([*command, str(target)]) in (1, 2), target
        said = capsys.readouterr()
        assert len(said.err.strip().splitlines()) == 1, said.err
        assert not said.out, target
    assert [p.name for p in tmp_path.iterdir()] == [f"folder{ending}"]


def test_what_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b/c.txt")
    check_writable(tmp_path / "a/b", folder=True)
    check_writable(tmp_path, folder=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="is a folder; give the name of a file"):
        check_writable(tmp_path)
    with pytest.raises(ExciteError, match="cannot write"):
        check_writable("a\0b")


@pytest.mark.parametrize("words", [["train"], ["detect", "train"], ["robustness", "x.ckpt"]], ids=lambda w: w[0])
@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_seeds(words: list[str], seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--seed", str(seed)]) == 2
    assert "--seed" in capsys.readouterr().err


def test_a_single_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "only").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / split / "only/a.png")
    data = f"imagefolder:{tmp_path}"
    assert main(["train", "--data", data, "--recipe", "digits", "--out", str(tmp_path / "run")]) == 2
    assert "has one class (only); training needs two or more" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    spec = NetworkSpec("eca_resnet20", 1, options={"width": 4}, class_names=["only"], preprocess=HOW)
    save_bundle(tmp_path / "net.safetensors", spec.build(), spec)
    assert main(["test", str(tmp_path / "net.safetensors"), "--data", data, "--out", str(tmp_path / "out")]) == 0
    assert "top-1 100.00 %" in capsys.readouterr().out


def test_a_factory_that_ignores_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import excite\ndef net(**_):\n    return excite.create_model('eca_resnet20', num_classes=3, width=4)\n"
    (tmp_path / "own.py").write_text(text)
    words = [
        "train",
        f"{tmp_path / 'own.py'}:net",
        "--epochs",
        "1",
        "--limit-train",
        "8",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 2
    assert (
        "gives [1, 3] for an image, not [1, 10] for the 10 classes of digits; its factory must"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_weights_that_overflow_say_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finite weights whose logits are not: no percentages of nan."""
    spec = NetworkSpec("eca_resnet20", 10, options={"width": 4}, class_names=list("0123456789"), preprocess=HOW)
    network = spec.build()
    with torch.no_grad():
        network.fc.weight.fill_(3e38)
        network.fc.weight[::2] = -3e38
        network.bn1.bias.fill_(1e30)
    save_bundle(tmp_path / "net.safetensors", network, spec)
    for words in (["predict", "NET", str(place / "a.png")], ["test", "NET", "--data", "digits", "--limit", "5"]):
        assert main([str(tmp_path / "net.safetensors") if w == "NET" else w for w in words]) == 1
        captured = capsys.readouterr()
        assert "not finite" in captured.err
        assert "nan %" not in captured.out


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "resnet20", "--input-size", "32", "--rounds", "1", "--min-time", "0.001", "--threads", "2"],
        ["profile", "resnet20", "--input-size", "32"],
        ["predict", "NET", "IMAGE"],
        ["test", "NET", "--data", "digits", "--limit", "5", "--out", "OUT"],
        ["explain", "random:eca_resnet20", "IMAGE", "--out", "OUT"],
        ["export", "NET", "--format", "torch-export", "--out", "OUT.pt2"],
        ["import", "NET"],
        ["robustness", "NET", "--data", "digits", "--limit", "2", "--severities", "1", "--corruptions", "blur"],
        ["train", "--epochs", "0"],
    ],
    ids=lambda w: w[0],
)
def test_a_command_leaves_the_process_as_it_was(
    words: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"NET": str(place / "net.safetensors"), "IMAGE": str(place / "a.png")}

    def state() -> list[object]:
        arrays = np.random.get_state()  # noqa: NPY002  (the global one is what is asked about)
        return [torch.get_rng_state().tolist(), random.getstate(), str(arrays), torch.get_num_threads(), os.getcwd(),
                torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(),
                {k: v for k, v in os.environ.items() if k.startswith("PL_")}]  # fmt: skip

    before = state()
    main([known.get(word, word) for word in words])
    capsys.readouterr()
    assert state() == before
