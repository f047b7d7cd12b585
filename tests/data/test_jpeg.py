"""The faster JPEG decoders: Pillow's pixels, and Pillow for what they leave."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excite.data import jpeg as module
from excite.data.jpeg import decode
from excite.data.preprocess import Reading, UnreadableImageError, read_rgb
from excite.errors import UsageError
from excite.train import TrainConfig
from excite.train.datamodule import ImageData
from imagesets import image_folder


def jpeg(size: tuple[int, int] = (300, 200), mode: str = "RGB", **options: object) -> bytes:
    rng = np.random.default_rng(0)
    grain = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    stream = io.BytesIO()
    grain.resize(size, Image.Resampling.BICUBIC).convert(mode).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.mark.parametrize("library", ["simplejpeg", "torchvision"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_pixels_are_those_of_pillow(library: str, mode: str, subsampling: int, tmp_path: Path, monkeypatch) -> None:
    if library == "simplejpeg":
        pytest.importorskip("simplejpeg")
    monkeypatch.setattr(module, "_has_simplejpeg", lambda: library == "simplejpeg")
    content = jpeg((301, 203), mode=mode, subsampling=subsampling)
    (tmp_path / "a.jpg").write_bytes(content)
    expected = torch.from_numpy(np.array(read_rgb(content))).permute(2, 0, 1)
    for source in (content, tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        assert torch.equal(decode(source), expected)


@pytest.mark.parametrize(("least", "reads"), [(None, True), (101, True), (100, False), (20, False)])
def test_pillow_decodes_large_images_at_a_part_of_their_size(least: int | None, reads: bool) -> None:
    assert (decode(jpeg((300, 200)), least) is not None) == reads
    image = Reading(least=least, decode=decode)(jpeg((300, 200)), "x")
    assert isinstance(image, torch.Tensor) == reads


@pytest.mark.parametrize("kind", ["PNG", "CMYK", "turned", "cut", "none", "missing"])
def test_pillow_reads_the_rest(kind: str, tmp_path: Path) -> None:
    content: bytes | Path = jpeg()
    reading = Reading(decode=decode)
    if kind == "PNG":
        stream = io.BytesIO()
        Image.open(io.BytesIO(content)).save(stream, "PNG")
        content = stream.getvalue()
    elif kind == "CMYK":
        content = jpeg(mode="CMYK")
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        content = jpeg(exif=exif)
    else:
        content = {"cut": content[: len(content) // 2], "none": b"text", "missing": tmp_path / "a.jpg"}[kind]
        with pytest.raises(UnreadableImageError):
            reading(content, "x")
        return
    image = reading(content, "x")
    assert isinstance(image, Image.Image)
    assert image.size == ((200, 300) if kind == "turned" else (300, 200))


def test_training_takes_it_and_validation_does_not(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    for file in root.rglob("*.png"):
        file.unlink()
        file.with_suffix(".jpg").write_bytes(jpeg())
    changes = {"data": f"imagefolder:{root}", "size": 96, "augment": "resized-crop", "workers": 0, "batch_size": 4}
    data = {name: ImageData(TrainConfig(decoder=name, **changes)) for name in ("pillow", "turbo")}
    assert isinstance(data["turbo"].train_source[0][0], torch.Tensor)
    assert isinstance(data["turbo"].val_source[0][0], Image.Image)
    assert isinstance(data["pillow"].train_source[0][0], Image.Image)
    one, other = (next(iter(d.train_dataloader()))[0] for d in data.values())
    assert torch.equal(one, other)
    with pytest.raises(UsageError, match="decoder"):
        TrainConfig(decoder="fast").check()
