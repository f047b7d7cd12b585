"""`excite robustness` from end to end, and every bad input with its exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excite.checkpoints.bundle import save_bundle
from excite.cli.main import main
from excite.data.bundle import chosen
from excite.data.preprocess import Preprocess
from excite.models import create_model, describe
from excite.robustness.published import open_published

QUICK = ["--data", "digits", "--limit", "12", "--severities", "1", "5", "--corruptions", "fog", "gaussian_noise"]


def bundle(folder: Path, name: str, classes: int = 10, size: int = 32) -> str:
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes)
    describe(model, preprocess={"size": size, "resize": size, "mean": [0.5] * 3, "std": [0.25] * 3})
    path = folder / f"{name}-{classes}-{size}.safetensors"
    save_bundle(path, model)
    return str(path)


def test_two_networks_of_different_size_with_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = bundle(tmp_path, "eca_resnet20"), bundle(tmp_path, "se_resnet20", size=24)
    out = tmp_path / "out"
    extra = ["--probes", "occlusion", "--baseline", first, "--out", str(out)]
    assert main(["robustness", first, second, *QUICK, *extra, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    one, two = result["networks"]
    assert result["images"] == 12
    assert one["corruptions"]["mce"] == pytest.approx(1)
    assert one["corruptions"]["normalisation"] == "divided by eca_resnet20, 2 of 15 families"
    errors = one["corruptions"]["errors"]
    assert list(errors) == ["gaussian_noise", "fog"]
    assert list(errors["fog"]) == ["1", "5"]
    assert one["corruptions"]["mean_error"] == pytest.approx(np.mean([list(e.values()) for e in errors.values()]))
    assert one["probes"]["occlusion"]["0"] == one["clean_error"]
    assert two["label"] == "se_resnet20"
    assert sorted(p.name for p in out.iterdir()) == ["corruptions.png", "errors.png", "probes.png", "robustness.json"]


def test_same_numbers_whatever_the_batch_and_company(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = bundle(tmp_path, "eca_resnet20"), bundle(tmp_path, "resnet20")
    found = []
    for arguments in ([first, "--batch-size", "5"], [second, first]):
        assert main(["robustness", *arguments, *QUICK, "--out", str(tmp_path / "o"), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["networks"][-1]["corruptions"]["errors"])
    assert found[0] == found[1]


def test_every_network_sees_the_images_through_its_own_window(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """16-bit images that one network looks at as a whole and the other through a window: each as if it were alone."""
    generator = np.random.default_rng(0)
    for split, label in ((s, c) for s in ("train", "val") for c in ("a", "b")):
        folder = tmp_path / "data" / split / label
        folder.mkdir(parents=True)
        for i in range(4):
            values = generator.integers(0, 3000, (32, 32)).astype(np.uint16) + 1000 * (label == "b")
            Image.fromarray(values.astype(np.uint16)).save(folder / f"{i}.png")
    files = []
    for number, window in enumerate([None, [0, 4000]]):
        torch.manual_seed(0)
        model = create_model("eca_resnet20", num_classes=2)
        how = {"size": 32, "resize": 32, "mean": [0.1] * 3, "std": [0.25] * 3} | ({"window": window} if window else {})
        describe(model, preprocess=how, class_names=["a", "b"])
        files.append(str(tmp_path / f"{number}.safetensors"))
        save_bundle(files[-1], model)

    def seen(*checkpoints: str) -> list[float]:
        """The mean of every batch that reaches a network."""
        means: list[float] = []

        def note(self: Preprocess, images: torch.Tensor) -> torch.Tensor:
            means.append(float(images.float().mean()))
            return original(self, images)

        original = Preprocess.normalise
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Preprocess, "normalise", note)
            given = ["--data", f"imagefolder:{tmp_path / 'data'}", "--corruptions", "brightness", "--severities", "1"]
            assert main(["robustness", *checkpoints, *given, "--out", str(tmp_path / "o"), "--json"]) == 0
        capsys.readouterr()
        return sorted(means)

    alone = sorted([*seen(files[0]), *seen(files[1])])
    assert seen(*files) == seen(*reversed(files)) == alone
    assert alone[-1] > 3 * alone[0]


def test_table_names_the_normalisation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robustness", bundle(tmp_path, "resnet20"), *QUICK, "--out", str(tmp_path / "o")]) == 0
    text = capsys.readouterr().out
    assert "normalisation: un-normalised, 2 of 15 families" in text
    assert "gaussian_noise" in text
    assert "mCE, normalised" not in text


def test_published_arrays_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = tmp_path / "CIFAR-10-C"
    stored.mkdir()
    generator = np.random.default_rng(0)
    np.save(stored / "fog.npy", generator.integers(0, 255, (50, 32, 32, 3), dtype=np.uint8))
    np.save(stored / "labels.npy", np.tile(np.arange(10), 5).astype(np.uint8))
    arguments = [
        "--data",
        "digits",
        "--corrupted",
        str(stored),
        "--limit",
        "10",
        "--out",
        str(tmp_path / "o"),
        "--json",
    ]
    assert main(["robustness", bundle(tmp_path, "resnet20"), *arguments]) == 0
    network = json.loads(capsys.readouterr().out)["networks"][0]
    # An untrained network gives one class to all noise, and each severity has every class once.
    assert list(network["corruptions"]["errors"]["fog"].values()) == pytest.approx([0.9] * 5)


def test_a_limit_keeps_the_same_rows_of_clean_and_corrupted_images(tmp_path: Path) -> None:
    values = np.arange(100 * 5, dtype=np.uint16).reshape(-1, 1, 1, 1).repeat(3, axis=3) % 100
    np.save(tmp_path / "fog.npy", values.astype(np.uint8))
    np.save(tmp_path / "labels.npy", (np.arange(100) % 10).astype(np.uint8))
    found = open_published(tmp_path).images("fog", 3, 7, [str(i) for i in range(10)])
    rows = [int(image[0, 0, 0]) for image, _ in found]
    assert rows == list(chosen(100, 7))
    assert rows != list(range(7))


def test_an_image_that_is_none_is_named_without_an_option_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for name in map(str, range(10)):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "a.png")
    (tmp_path / "images" / "val" / "3" / "b.png").write_text("no image")
    given = [bundle(tmp_path, "resnet20"), "--data", f"imagefolder:{tmp_path / 'images'}"]
    assert main(["robustness", *given, "--out", str(tmp_path / "o")]) == 1
    text = capsys.readouterr().err
    assert "3/b.png" in text
    assert "repair or remove it" in text
    assert "--skip-unreadable" not in text


def cases(folder: Path) -> dict[str, tuple[list[str], int, str]]:
    good = bundle(folder, "resnet20")
    text = folder / "text.safetensors"
    text.write_text("no checkpoint")
    return {
        "no such checkpoint": (["gone.ckpt"], 2, "gone.ckpt"),
        "not a checkpoint": ([str(text)], 1, "text.safetensors"),
        "unknown corruption": ([good, "--corruptions", "fogg"], 2, "'fog'"),
        "unknown probe": ([good, "--probes", "occlusoin"], 2, "'occlusion'"),
        "unknown severity": ([good, "--severities", "6"], 2, "1 to 5"),
        "nothing": ([good, "--corruptions", "none"], 2, "nothing to measure"),
        "no images": ([good, "--limit", "0"], 2, "--limit"),
        "no batch": ([good, "--batch-size", "0"], 2, "--batch-size"),
        "unknown data": ([good, "--data", "digit"], 2, "digits"),
        "other classes": ([bundle(folder, "resnet20", classes=7), "--data", "digits"], 2, "7 classes"),
        "no data": ([good], 2, "does not say what it was trained on"),
        "bad baseline": ([good, "--baseline", "gone.ckpt"], 2, "gone.ckpt"),
        "alexnet on ten classes": ([good, "--data", "digits", "--baseline", "alexnet"], 2, "1000 classes"),
        "no published set": ([good, "--corrupted", str(folder)], 2, "no corrupted set"),
        "unknown device": ([good, "--device", "gpuu"], 2, "gpuu"),
        "misspelt option": ([good, "--corrupton", "fog"], 2, "--corruptions"),
    }


CASES = [
    "no such checkpoint",
    "not a checkpoint",
    "unknown corruption",
    "unknown probe",
    "unknown severity",
    "nothing",
    "no images",
    "no batch",
    "unknown data",
    "other classes",
    "no data",
    "bad baseline",
    "alexnet on ten classes",
    "no published set",
    "unknown device",
    "misspelt option",
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, culprit = cases(tmp_path)[case]
    out = tmp_path / "out"
    assert main(["robustness", *arguments, "--out", str(out)]) == code
    assert culprit in capsys.readouterr().err
    assert not out.exists()
