"""Images as they are: windows of deep samples, luma, large JPEGs at a part of their size, resized images on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import layouts as made
from excite.checkpoints.bundle import load_bundle
from excite.cli.main import main
from excite.data import open_data
from excite.data.folder import FolderImages
from excite.data.preprocess import Preprocess, Reading, UnreadableImageError, read_as, read_rgb
from excite.data.resized import ResizedImages
from excite.errors import ExciteError
from excite.models import NetworkSpec
from excite.train import TrainConfig
from excite.train.datamodule import ImageData
from imagesets import picture

TINY = ["--options.width", "4", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--device", "cpu"]


def smooth(size: tuple[int, int]) -> Image.Image:
    return picture(3, (12, 9)).resize(size, Image.Resampling.BICUBIC)


def grey(image: Image.Image) -> list[int]:
    return np.asarray(image)[..., 0].ravel().tolist()


@pytest.mark.parametrize(
    ("values", "kind", "window", "expected"),
    [
        ([[0, 1000], [3000, 65535]], np.uint16, None, [0, 3, 11, 255]),
        ([[0, 1000], [3000, 65535]], np.uint16, (1000, 3000), [0, 0, 255, 255]),
        ([[0, 1000], [2000, 4000]], np.uint16, (0, 4000), [0, 64, 128, 255]),
        ([[-5.0, 0.0], [5.0, 9.0]], np.float32, (-5, 5), [0, 128, 255, 255]),
        ([[0.0, 0.5], [1.0, 0.25]], np.float32, None, [0, 128, 255, 64]),
        ([[0, 100], [200, 255]], np.uint8, (0, 100), [0, 100, 200, 255]),  # 8 bits have a window already
    ],
)
@pytest.mark.parametrize("stored", ["array", "tiff"])
def test_windows(
    values: list[list[float]], kind: type, window: tuple[float, float] | None, expected: list[int], stored: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    source: np.ndarray | Path = np.array(values, dtype=kind)
    if stored == "tiff":
        Image.fromarray(source).save(tmp_path / "x.tif")
        source = tmp_path / "x.tif"
    assert grey(read_rgb(source, window=window)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("value", [-3.0, 7.0])
def test_floats_without_a_window_name_the_option(value: float, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5, value]], dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match="--window LOW HIGH"):
        read_rgb(tmp_path / "x.tif")
    Image.fromarray(np.array([[0.5, np.nan]], dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match="not finite"):
        read_rgb(tmp_path / "x.tif", window=(0, 1))


def test_a_run_keeps_its_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training, testing and predicting read alike: the card says what is black and white."""
    for label, name in enumerate(("dark", "bright")):
        for i in range(6):
            (tmp_path / "scans" / name).mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(i).integers(100 + 400 * label, 300 + 400 * label, (16, 16), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "scans" / name / f"{i}.tif")
    run = tmp_path / "run"
    words = ["train", "resnet20", "--data", str(tmp_path / "scans"), "--window", "100", "700", "--channels", "1"]
    assert main([*words, *TINY, "--out", str(run), "--quiet"]) == 0
    model, card = load_bundle(run)
    assert card.preprocess is not None
    assert card.preprocess["window"] == [100, 700]
    assert card.in_channels == 1
    how = Preprocess.of(card)
    file = tmp_path / "scans/bright/0.tif"
    prepared = how.batch([file])
    assert prepared.shape == (1, 1, 16, 16)
    expected = (np.asarray(Image.open(file), dtype=np.float64) - 100) / 600
    back = prepared[0, 0].numpy() * how.std[0] + how.mean[0]
    assert np.abs(back - expected).max() < 0.01
    assert main(["predict", str(run), str(file), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["predictions"][0]["classes"]
    with torch.no_grad():
        chance = model(prepared).softmax(1)[0]
    assert {g["class"]: g["probability"] for g in row} == pytest.approx(
        dict(zip(card.class_names or [], chance.tolist(), strict=True)), rel=1e-4
    )
    assert main(["test", str(run), "--json"]) == 0
    tested = json.loads(capsys.readouterr().out)
    rows = (run / "metrics.csv").read_text().splitlines()
    top1 = float(dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))["val_top1"])
    assert tested["top1"] == pytest.approx(top1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--window", "5", "5"], "--window takes two numbers, the lower one first"),
        (["--window", "5"], "--window takes two numbers, the lower one first"),
        (["--channels", "0"], "--channels must be at least 1"),
        (["--channels", "4", "--randaugment", "9"], "--randaugment is for colours"),
        (["--cache", "-1"], "--cache must be at least 0"),
    ],
)
def test_bad_options(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("window", ["no list", [1], [2, 1], [0, float("inf")], [0, 1, 2], [None, 1]])
def test_a_card_with_a_bad_window_is_refused(window: object) -> None:
    how = {"size": 16, "resize": 16, "mean": [0.5], "std": [0.5], "window": window}
    values = {**NetworkSpec("resnet20", 2).to_dict(), "preprocess": how}
    with pytest.raises(ExciteError, match="window"):
        NetworkSpec.from_dict(values)


def test_a_network_of_one_channel_trains_on_the_luma(tmp_path: Path) -> None:
    from excite.train.module import Classifier

    how = Preprocess(16, 16, (0.4,), (0.2,), 1)
    card = NetworkSpec("resnet20", 2, 1, options={"width": 4}, preprocess=how.to_dict())
    network = card.build().eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    module = Classifier(network, TrainConfig("resnet20"), card).eval()
    with torch.no_grad():
        assert torch.equal(module(images), network(how.normalise(images)))


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((400, 304), 153, (400, 304)),  # less than twice as large: untouched
        ((400, 304), 152, (200, 152)),
        ((400, 304), 76, (100, 76)),
        ((400, 304), 10, (50, 38)),
        ((304, 400), 152, (152, 200)),
    ],
)
def test_large_jpegs_are_decoded_at_a_part_of_their_size(
    size: tuple[int, int], least: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "x.jpg"
    smooth(size).save(file, quality=95)
    part, whole = read_rgb(file, least=least), read_rgb(file)
    assert part.size == expected
    assert min(part.size) >= least
    if part.size == whole.size:
        assert part.tobytes() == whole.tobytes()
    else:
        reference = np.asarray(whole.resize(part.size, Image.Resampling.BOX), dtype=float)
        assert np.abs(np.asarray(part, dtype=float) - reference).mean() < 3
    assert read_rgb(file.read_bytes(), least=least).tobytes() == part.tobytes()
    smooth(size).save(tmp_path / "x.png")
    assert read_rgb(tmp_path / "x.png", least=least).size == size


def test_turned_photos_stay_upright_at_a_part_of_their_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    smooth((400, 300)).save(tmp_path / "x.jpg", exif=exif)
    assert read_rgb(tmp_path / "x.jpg", least=75).size == (75, 100)


def photos(root: Path, size: tuple[int, int] = (640, 480)) -> str:
    for label, name in enumerate(("a", "b")):
        for i in range(5):
            file = root / name / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(10 * label + i, (12, 9)).resize(size, Image.Resampling.BICUBIC).save(file, quality=92)
    return f"imagefolder:{root}"


def test_only_training_decodes_at_a_part_of_the_size(tmp_path: Path) -> None:
    spec = photos(tmp_path)
    data = ImageData(TrainConfig("eca_resnet18", data=spec, size=80, resize=80, augment="resized-crop"))
    assert not data.cached
    assert data.train_source[0][0].size == (320, 240)  # type: ignore[union-attr]
    assert data.val_source[0][0].size == (640, 480)  # type: ignore[union-attr]
    assert data.bundle.train[0][0].size == (640, 480)  # type: ignore[union-attr]


def test_resized_images_are_kept_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCITE_CACHE", str(tmp_path / "cache"))
    bundle = open_data(photos(tmp_path / "photos"))
    source = bundle.val
    assert isinstance(source, FolderImages)
    how = Preprocess(80, 96)
    plain = [how.image(source[i][0]) for i in range(len(source))]
    limit = 6 * 96 * 96  # of one image
    some = ResizedImages(source, bundle.spec, 96, limit)
    for _ in range(2):
        for i in range(len(source)):
            image, label = some[i]
            assert torch.equal(how.image(image), plain[i])  # the same bits, from the disk too
            assert label == source[i][1]
    files = list((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 1
    assert files[0].stat().st_size <= limit
    files[0].write_bytes(files[0].read_bytes()[:100])  # damaged: decoded again
    assert torch.equal(how.image(some[next(iter(some.kept))][0]), plain[next(iter(some.kept))])
    kept = next(iter(some.kept))
    picture(99, (12, 9)).resize((640, 480)).save(source.files[kept])  # another photo of the same name
    assert not torch.equal(how.image(some[kept][0]), plain[kept])
    again = ResizedImages(source, bundle.spec, 96, 10**9)
    calls = []
    monkeypatch.setattr("excite.data.preprocess.Image.open", lambda *a, **k: calls.append(a))
    assert len(again.kept) == len(source)
    again[kept]
    assert not calls  # from the disk


def test_training_from_the_cache_gives_the_same_scores_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCITE_CACHE", str(tmp_path / "cache"))
    spec = photos(tmp_path / "photos", (320, 240))
    words = ["train", "resnet20", "--data", spec, "--augment", "resized-crop", "--size", "32", "--resize", "36"]
    rows = []
    for name in ("first", "second"):
        run = tmp_path / name
        assert main([*words, *TINY, "--cache", "0.1", "--out", str(run), "--quiet"]) == 0
        lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
        rows.append([dict(zip(lines[0], line, strict=True))["train_loss"] for line in lines[1:]])
    assert rows[0] == rows[1]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 10


def test_a_reading_is_kept_to_the_copy(tmp_path: Path) -> None:
    images = open_data(made.sixteen_bits(tmp_path)).train
    other = read_as(images, Reading(window=(0, 100)))
    assert np.asarray(other[0][0]).mean() > 250
    assert 100 < np.asarray(images[0][0]).mean() < 150


def channels_as(kind: str, root: Path, channels: int) -> Path:
    for label, name in enumerate(("a", "b")):
        for i in range(6):
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(10 * label + i).integers(0, 4096, (20, 24, channels), dtype=np.uint16)
            values[..., 0] += 2000 * label
            if kind == "last":
                np.save(folder / f"{i}.npy", values)
            elif kind == "first":
                np.save(folder / f"{i}.npy", np.moveaxis(values, 2, 0))
            else:
                pages = [Image.fromarray(values[..., c]) for c in range(channels)]
                pages[0].save(folder / f"{i}.tif", save_all=True, append_images=pages[1:])
    return root


@pytest.mark.parametrize("kind", ["last", "first", "pages"])
def test_any_number_of_channels(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = channels_as(kind, tmp_path / "bands", 5), tmp_path / "run"
    words = ["train", "resnet20", "--data", str(root), "--channels", "5", "--window", "0", "8000", "--size", "16"]
    assert main([*words, *TINY, "--out", str(run), "--quiet"]) == 0
    _, card = load_bundle(run)
    assert card.in_channels == 5
    how = Preprocess.of(card)
    assert len(how.mean) == len(how.std) == 5
    assert how.mean[0] == pytest.approx((2048 + 1000) / 8000, abs=0.03)
    assert how.mean[1] == pytest.approx(2048 / 8000, abs=0.03)
    file = next((root / "a").iterdir())
    assert how.batch([file]).shape == (1, 5, 16, 16)
    assert main(["test", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert main(["predict", str(run), str(file), "--json"]) == 0
    capsys.readouterr()
    few = channels_as(kind, tmp_path / "few", 4)
    assert main([*words[:3], str(few), *words[4:], *TINY, "--out", str(tmp_path / "other"), "--quiet"]) == 1
    assert "expected 5 channels" in capsys.readouterr().err
