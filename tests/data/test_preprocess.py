"""How a file becomes a tensor: every kind of file, and the same bits in every command that reads one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from excite.cli.predict import classify
from excite.data.arrays import ArrayImages
from excite.data.preprocess import LUMA, Preprocess, UnreadableImageError, read_rgb
from excite.errors import ExciteError, UsageError
from excite.models import create_model
from excite.train.evaluate import evaluate
from excite.train.predictor import NetworkPredictor

STATISTICS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
MODES = ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "1"]
COMMANDS = ["predict", "test", "explain", "robustness", "export"]


def picture(height: int = 40, width: int = 52) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * rows // height, 255 * columns // width
    return Image.fromarray(np.stack([red, green, (rows * columns) % 256], axis=2).astype(np.uint8))


def in_mode(mode: str) -> Image.Image:
    grey = np.asarray(picture().convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    if mode in ("RGBA", "LA"):
        image = picture().convert(mode)
        image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 52).astype(np.uint8), (40, 1))))
        return image
    return picture().convert(mode)


def write(file: Path, mode: str = "RGB", turn: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if file.suffix == ".webp" else {}
    in_mode(mode).save(file, **options, **({"exif": exif} if turn != 1 else {}))
    return file


FILES = (
    [(f"{mode}.tif", mode, 1) for mode in MODES]
    + [(f"x.{suffix}", "RGB", 1) for suffix in ("jpg", "png", "webp", "bmp")]
    + [(f"x.{suffix}", "L", 1) for suffix in ("jpg", "png", "bmp")]
    + [(f"x{turn}.{suffix}", "RGB", turn) for turn in range(2, 9) for suffix in ("jpg", "png", "tif", "webp")]
    + [("x.png", "P", 1), ("x.png", "RGBA", 1), ("x.png", "LA", 1), ("x.png", "I;16", 1), ("x.jpg", "CMYK", 1)]
    + [("x.png", "1", 1), ("grey6.png", "I;16", 6), ("x.webp", "RGBA", 1)]
)


class Seen(nn.Module):
    """Keeps what it is given; gives two classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 1)
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.images.append(x.detach().clone())
        return self.conv(x).mean((2, 3))


class OneFile:
    """A data set of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_rgb(self.file), 0

    def name(self, index: int) -> str:
        return str(self.file)


def fed(command: str, file: Path, channels: int) -> Tensor:
    """What a network is given by each command for one file, [1 c 24 24]."""
    from excite.explain.networks import Network
    from excite.explain.report import cam_row
    from excite.models import NetworkSpec
    from excite.robustness.evaluate import error_rates, geometry, load_pixels

    how = {"size": 24, "resize": 28, **{k: v[:channels] for k, v in STATISTICS.items()}}
    card = NetworkSpec("x", 2, channels, class_names=["a", "b"], preprocess=how)
    model = Seen(channels).eval()
    network = Network("x", "x", model, card)
    if command == "predict":
        classify(NetworkPredictor(model, card), [file], 1, 8, False)
    elif command == "test":
        evaluate(NetworkPredictor(model, card), OneFile(file))
    elif command == "explain":
        cam_row(network, "x", read_rgb(file), 1, None, torch.device("cpu"))
    elif command == "robustness":
        shape = geometry(network)
        error_rates([network], {shape: load_pixels([OneFile(file)[0]], shape)})
    else:
        return next(Preprocess.of(card).batches(OneFile(file)))[0]
    return model.images[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "mode", "turn"), FILES)
def test_every_command_feeds_the_same_bits(tmp_path: Path, name: str, mode: str, turn: int, channels: int) -> None:
    file = write(tmp_path / name, mode, turn)
    tensors = [fed(command, file, channels) for command in COMMANDS]
    assert tensors[0].shape == (1, channels, 24, 24)
    for command, tensor in zip(COMMANDS[1:], tensors[1:], strict=True):
        assert torch.equal(tensor, tensors[0]), command


def test_validation_during_training_sees_the_bits_of_a_test(tmp_path: Path) -> None:
    from excite.train.config import TrainConfig
    from excite.train.datamodule import ImageData
    from excite.train.module import Classifier

    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            write(tmp_path / split / label / "x.jpg", turn=6)
    for config in (
        TrainConfig(data=f"imagefolder:{tmp_path}", size=24, resize=28, workers=0),
        TrainConfig(data=f"imagefolder:{tmp_path}", size=24, resize=24, workers=0),  # decoded once, kept in memory
    ):
        data = ImageData(config)
        card = create_model("resnet20", num_classes=2).excite_card
        object.__setattr__(card, "preprocess", data.preprocess.to_dict())
        model = Seen(3)
        images, _ = next(iter(data.val_dataloader()))
        Classifier(model, config, card).forward(images)
        assert torch.equal(model.images[0][:1], data.preprocess.batch([tmp_path / "val/a/x.jpg"]))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientations(tmp_path: Path, suffix: str, turn: int) -> None:
    # The stored pixels of the EXIF specification's eight cases, made from one upright picture.
    upright = np.asarray(picture())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(file, exif=exif, **options)
    shown = np.asarray(read_rgb(file)).astype(int)
    assert shown.shape == upright.shape
    assert np.abs(shown - upright).max() <= (8 if suffix == "jpg" else 0)
    assert np.asarray(read_rgb(file, upright=False)).shape == stored.shape
    assert np.abs(np.asarray(read_rgb(file, upright=False)).astype(int) - stored).max() <= (8 if suffix == "jpg" else 0)
    with Image.open(file) as opened:
        assert np.array_equal(np.asarray(read_rgb(opened)), shown)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
@pytest.mark.parametrize("top", [10, 100, 255])
def test_wide_greys_keep_the_range_of_their_type(tmp_path: Path, mode: str, top: int) -> None:
    grey = np.linspace(0, top, 64).round().astype(np.uint8).reshape(8, 8)
    wide = {
        "I;16": grey.astype(np.uint16) * 256,
        "I": grey.astype(np.int32) * 256,
        "F": (grey / 255).astype(np.float32),
    }
    Image.fromarray(wide[mode]).save(tmp_path / "x.tif")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "x.tif"))[..., 0], grey)
    assert np.array_equal(np.asarray(read_rgb(wide[mode]))[..., 0], grey)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4), 1.5, np.float32), "floats run from 1.5 to 1.5; expected 0"),
        (np.full((4, 4), np.nan, np.float32), "expected 0"),
        (np.full((4, 4), 70000, np.int32), "run from 70000 to 70000; expected 16 bits"),
        (np.full((4, 4), -1, np.int32), "expected 16 bits"),
        (np.zeros((4, 4), np.int8), "int8"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_images(values: np.ndarray, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        read_rgb(values, "frame 3")


def test_arrays_and_tensors_are_read_as_files_are(tmp_path: Path) -> None:
    file, image = write(tmp_path / "x.png"), picture()
    how = Preprocess(24, 28)
    wanted = how.image(file)
    array = np.asarray(image)
    for source in (image, array, torch.from_numpy(array.copy()).permute(2, 0, 1), file.read_bytes(), str(file)):
        assert torch.equal(how.image(source), wanted)
    assert torch.equal(how.image(torch.from_numpy(array / 255).permute(2, 0, 1)), wanted)
    assert torch.equal(how.normalise(wanted[None]), how.normalise(wanted[None].float() / 255))


def test_one_channel_is_luma() -> None:
    how = Preprocess(8, 8, (0.0,), (1 / 255,), 1)
    colours = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    exact = (colours.double() * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True) / 65536
    assert torch.allclose(how.normalise(colours).double(), exact, atol=1e-4)
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(how.normalise(grey), Preprocess(8, 8, (0.0,) * 3, (1 / 255,) * 3).normalise(grey)[:, :1])


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.png").read_bytes()
    strip = Image.new("L", (40000, 1))
    strip.save(tmp_path / "strip.png")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("cut.png", "text.jpg", "gone.png", "strip.png"):
        with pytest.raises(UnreadableImageError, match=name):
            Preprocess(224, 256).image(tmp_path / name)


def test_a_huge_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match=r"x\.png.*exceeds limit"):
        read_rgb(write(tmp_path / "x.png"))


@pytest.mark.parametrize(
    "values",
    [
        {"size": 24, "resize": 20, "mean": [0.5] * 3, "std": [0.5] * 3},
        {"size": 24, "mean": [0.5] * 2, "std": [0.5] * 2},
        {"size": 24, "mean": [0.5] * 3, "std": [0.0] * 3},
        {"size": 24},
        {"size": "x", "mean": [0.5], "std": [0.5]},
    ],
)
def test_preparations_that_are_none(values: dict) -> None:
    with pytest.raises(ExciteError, match="prepare"):
        Preprocess.from_dict(values)


def test_other_channels_are_refused() -> None:
    for channels, error, culprit in ((0, UsageError, "takes 0"), (5, ExciteError, "5 channels")):
        with pytest.raises(error, match=culprit):
            Preprocess.from_dict({"size": 8, "mean": [0.5] * 4, "std": [0.5] * 4}, channels)
    for channels, of_image in ((3, 2), (3, 5), (1, 5), (4, 3), (4, 1), (2, 3)):  # nothing is left out or made up
        how = Preprocess.from_dict({"size": 8, "mean": [0.5], "std": [0.5]}, channels)
        with pytest.raises(UnreadableImageError, match="channels"):
            how.image(np.zeros((9, 8, of_image), np.uint8))


@pytest.mark.parametrize(("height", "width"), [(96, 160), (160, 96), (96, 96)])
def test_the_middle_is_cut_out_of_the_resized_image(height: int, width: int) -> None:
    """The shorter side becomes 48 pixels, half of it, so 32 of them are the middle 64 pixels of the original."""
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2 - 32, width // 2 - 32
    pixels[top : top + 64, left : left + 64] = 255
    pixels[height // 2 :, :, 2] = 0  # the lower half has no blue
    image = Preprocess(32, 48).image(pixels)
    assert image.shape == (3, 32, 32)
    assert image[:, 1:-1, 1:-1].float().mean((1, 2))[:2].tolist() == [255, 255]
    assert (image[:2, [0, 0, -1, -1], [0, -1, 0, -1]] < 250).all()  # the edge begins right behind the corners
    assert image[2, 1:14, 1:-1].min() == 255
    assert image[2, 18:].max() == 0
    assert torch.equal(image, image.flip(2))


def test_details_are_averaged_when_an_image_shrinks() -> None:
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[::4] = 200  # every fourth line
    image = Preprocess(16, 16).image(pixels)
    assert image[:, 2:-2].float().sub(50).abs().max() < 5


def test_another_size_keeps_the_share_that_is_cut_off() -> None:
    assert (Preprocess(224, 256).at(112).size, Preprocess(224, 256).at(112).resize) == (112, 128)
    assert Preprocess(224, 256).at(None) == Preprocess(224, 256)


@pytest.mark.parametrize("scale", [1, 255])
def test_a_card_normalises_by_mean_and_deviation(scale: int) -> None:
    """From the card, for bytes and for floats in [0, 1]: (x - mean) / std in each channel."""
    how = Preprocess.from_dict(Preprocess(8, 8, (0.2, 0.4, 0.6), (0.1, 0.25, 0.5)).to_dict())
    images = torch.tensor([51, 102, 204]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    images = images.to(torch.uint8) if scale == 1 else images.float() / scale
    expected = torch.tensor([(0.2 - 0.2) / 0.1, (0.4 - 0.4) / 0.25, (0.8 - 0.6) / 0.5]).view(1, 3, 1, 1)
    assert torch.allclose(how.normalise(images), expected.expand(1, 3, 8, 8), atol=1e-6)


def test_batches_hold_the_labels_of_their_images() -> None:
    pixels = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 4, 4).contiguous()
    images = ArrayImages(pixels, 10 * torch.arange(7))
    how = Preprocess(4, 4, (0.0,) * 3, (1 / 255,) * 3)
    for indices in (None, [6, 1, 3]):
        seen = [(x[:, 0, 0, 0].round().long(), y) for x, y in how.batches(images, indices, size=2)]
        assert all(torch.equal(10 * x, y) for x, y in seen)
        assert torch.cat([x for x, _ in seen]).tolist() == (indices or list(range(7)))
