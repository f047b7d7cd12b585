"""Shards: what is written is what is read; whole or not at all; the same bytes again."""

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from excite.cli.main import main
from excite.data import DataBundle, open_data
from excite.data import shards as module
from excite.data.manifest import read_manifest
from excite.data.preprocess import UnreadableImageError, read_rgb
from excite.data.shards import verify, write_shards
from excite.errors import ExciteError, UsageError

CLASSES = ["a b", "a_b", "été", "..x"]  # safe names of the first two would be one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same file names in every class; formats that stay and formats that do not; a turned photograph."""
    chance = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, count in (("train", 5), ("val", 2)):
        for name in CLASSES:
            place = tmp_path / "data" / split / name.replace("..", "x..")
            place.mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(chance.integers(0, 255, (20 + i, 24, 3), dtype=np.uint8))
                ending, more = [("jpg", {"exif": exif}), ("png", {}), ("bmp", {}), ("webp", {"lossless": True})][i % 4]
                picture.save(place / f"{i}.{ending}", **more)
    return tmp_path / "data"


def pixels(bundle: DataBundle) -> list[tuple[bytes, int]]:
    """Every image of both splits, upright, with its label."""
    found = []
    for images in (bundle.train, bundle.val):
        for index in range(len(images)):
            image, label = images[index]
            found.append((read_rgb(image).tobytes(), label))
    return found


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("kind", ["imagefolder", "digits", "wds"])
def test_what_is_read_back_is_what_was_written(kind: str, folder: Path, tmp_path: Path) -> None:
    spec = f"imagefolder:{folder}" if kind == "imagefolder" else "digits"
    if kind == "wds":  # shards of shards
        write_shards(open_data("digits"), tmp_path / "first")
        spec = f"wds:{tmp_path / 'first'}"
    limits = {"limit_train": 40, "limit_val": 20} if kind != "imagefolder" else {}
    source = open_data(spec, **limits)
    written = write_shards(source, tmp_path / "out", shard_size=7, workers=2).manifest
    read = open_data(f"wds:{tmp_path / 'out'}")
    assert read.class_names == source.class_names
    assert read.default_preprocess == source.default_preprocess
    assert (read.val_name, read.separate_test) == (source.val_name, None)
    assert (len(read.train), len(read.val)) == (len(source.train), len(source.val))
    assert pixels(read) == pixels(source)
    assert written.samples == len(source.train) + len(source.val)
    assert verify(tmp_path / "out") == written


def test_every_key_is_there_once_and_names_its_class(folder: Path, tmp_path: Path) -> None:
    manifest = write_shards(open_data(f"imagefolder:{folder}"), tmp_path / "out", shard_size=3).manifest
    keys: Counter[str] = Counter()
    for shard in manifest.shards:
        with tarfile.open(tmp_path / "out" / shard.name) as tar:
            keys.update(f"{shard.split}/{name.rpartition('.')[0]}" for name in tar.getnames() if name.endswith(".cls"))
    assert len(keys) == manifest.samples == 28
    assert set(keys.values()) == {1}
    places = {key.split("/")[1] for key in keys}
    assert len(places) == len(CLASSES)
    assert not [place for place in places if place.startswith(".") or " " in place]


def test_the_bytes_depend_on_the_data_alone(folder: Path, tmp_path: Path) -> None:
    source = open_data(f"imagefolder:{folder}")
    write_shards(source, tmp_path / "one", shard_size=3)
    write_shards(source, tmp_path / "two", shard_size=3, workers=3)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_what_is_whole_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = open_data(f"imagefolder:{folder}"), tmp_path / "out"
    write_shards(source, out, shard_size=3)
    whole = content(out)
    broken = out / "train-000001.tar"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    (out / "train-000002.tar").unlink()
    (out / ".0123abcd.partial.tar").write_bytes(b"half")
    with pytest.raises(ExciteError, match=r"000001\.tar has another SHA-256.*000002\.tar is missing"):
        verify(out)
    with pytest.raises(ExciteError, match=r"000002\.tar is missing"):
        open_data(f"wds:{out}")
    parts = []
    plain = module._write_shard
    monkeypatch.setattr(module, "_write_shard", lambda part, *rest: parts.append(part.name) or plain(part, *rest))
    assert write_shards(source, out, shard_size=3).kept == len(whole) - 3
    assert parts == ["train-000001.tar", "train-000002.tar"]
    assert content(out) == whole


def test_larger_images_are_shrunk(folder: Path, tmp_path: Path) -> None:
    source = open_data(f"imagefolder:{folder}")
    write_shards(source, tmp_path / "out", size=21)
    read = open_data(f"wds:{tmp_path / 'out'}")
    before, after = ([bundle.train[i][0].size for i in range(len(bundle.train))] for bundle in (source, read))
    assert {min(size) for size in after} == {20, 21}
    for old, new in zip(before, after, strict=True):
        assert new == old if min(old) <= 21 else min(new) == 21


def test_unreadable_images_are_named_or_left_out(folder: Path, tmp_path: Path) -> None:
    bad = folder / "train" / "a b" / "1.png"
    bad.write_bytes(b"no picture")
    source, out = open_data(f"imagefolder:{folder}"), tmp_path / "out"
    for workers in (0, 2):
        with pytest.raises(UnreadableImageError, match=r"1\.png"):
            write_shards(source, out, shard_size=3, workers=workers)
        with pytest.raises(ExciteError, match="is not complete"):
            open_data(f"wds:{out}")
    manifest = write_shards(source, out, shard_size=3, skip=True).manifest
    assert manifest.samples == 27
    assert [name for shard in manifest.shards for name in shard.skipped] == [str(bad)]
    assert verify(out) == manifest


def test_nothing_else_is_overwritten(folder: Path, tmp_path: Path) -> None:
    source, out = open_data(f"imagefolder:{folder}"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"holds no shards \(mine\.txt"):
            write_shards(source, out, overwrite=overwrite)
    (out / "mine.txt").unlink()
    write_shards(source, out)
    with pytest.raises(UsageError, match=r"holds shards of imagefolder.*1000 images each"):
        write_shards(source, out, shard_size=3)
    (out / "mine.txt").write_text("mine")
    write_shards(source, out, shard_size=9, overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert verify(out).shard_size == 9


def member(name: str, data: bytes, **fields: Any) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def changed(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((out / "manifest.json").read_text())
    change(values)
    (out / "manifest.json").write_text(json.dumps(values))


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda m: m.update(format=2), "of a later version"),
    "no classes": (lambda m: m.update(classes=[]), "'classes' in its card is"),
    "classes of other kinds": (lambda m: m.update(classes=[1]), "'classes' in its card is"),
    "a shard elsewhere": (lambda m: m["shards"][0].update(name="../train-000000.tar"), "'name' in its card is"),
    "an absolute shard": (lambda m: m["shards"][0].update(name="/etc/passwd"), "'name' in its card is"),
    "twice": (lambda m: m["shards"].append(m["shards"][0]), "of different names"),
    "no sum": (lambda m: m["shards"][0].update(sha256="abc"), "'sha256' in its card is"),
    "half": (lambda m: m.update(complete=False), "is not complete"),
    "another size": (lambda m: m["shards"][0].update(bytes=7), "not 7"),
    "no preprocess": (lambda m: m.pop("preprocess"), "'preprocess' in its card is None"),
    "a huge size": (lambda m: m["preprocess"].update(size=10**6), "'size' in its card is"),
    "a list": (lambda m: m.update(shards={}), "'shards' in its card is"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    write_shards(open_data("digits", limit_train=20, limit_val=10), out, shard_size=8)
    return out


@pytest.mark.parametrize("name", list(MANIFESTS))
def test_a_manifest_of_a_stranger(name: str, written: Path, tmp_path: Path) -> None:
    out = shutil.copytree(written, tmp_path / "out")
    change, words = MANIFESTS[name]
    changed(out, change)
    with pytest.raises(ExciteError) as caught:
        open_data(f"wds:{out}")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_verifying_finds(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sums are right in each of these: whoever changed a shard has changed the manifest too."""
    assert main(["shards", str(written), "--verify"]) == 0
    assert "every key is there once" in capsys.readouterr().out
    first = written / "train-000000.tar"
    with tarfile.open(first) as tar:
        whole = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    faults = {
        "is there twice": [*whole, whole[-1]],
        "holds 7 samples": whole[2:],
        "has no label": whole[:-1],
        "has label 10": [*whole[:-1], (whole[-1][0], b"10")],
    }
    for number, (words, members) in enumerate(faults.items()):
        out = shutil.copytree(written, tmp_path / str(number))
        with tarfile.open(out / first.name, "w") as tar:
            for info, data in members:
                tar.addfile(*member(info.name, data))
        digest = module.hashlib.sha256((out / first.name).read_bytes()).hexdigest()
        size = (out / first.name).stat().st_size
        changed(out, lambda m, digest=digest, size=size: m["shards"][0].update(sha256=digest, bytes=size))
        assert main(["shards", str(out), "--verify"]) == 1
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1
    out = shutil.copytree(written, tmp_path / "more")
    shutil.copyfile(first, out / "train-000009.tar")
    with pytest.raises(ExciteError, match=r"train-000009\.tar is not in its manifest"):
        verify(out)


def test_links_in_shards_lead_nowhere(written: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        for split in ("train", "val"):
            with tarfile.open(tmp_path / f"{split}-0.tar", "w") as tar:
                tar.addfile(*member("a/0.png", b"", type=kind, linkname=str(secret)))
                tar.addfile(*member("a/0.cls", b"0"))
        with pytest.raises(ExciteError, match="a/0 has no image"):
            open_data(f"wds:{tmp_path}/*.tar")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["shards", "digits", "-o", str(out), "--shard-size", "500", "--verify", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["kept"], facts["verified"], len(facts["files"])) == (1797, 0, True, 4)
    assert main(["shards", "digits", "-o", str(out), "--shard-size", "500"]) == 0
    assert "4 shards (4 of them were there)" in capsys.readouterr().out
    assert read_manifest(out).samples == 1797
    for words, reason in [
        (["digits"], "--out FOLDER"),
        (["digits", "-o", str(out), "--shard-size", "0"], "--shard-size"),
        (["digits", "-o", str(out), "--workers", "-2"], "--workers"),
        ([str(tmp_path), "--verify"], "holds no manifest.json"),
        ([str(out), "--verify", "--size", "9"], "writes nothing"),
        (["digts", "-o", str(tmp_path / "x")], "did you mean 'digits'"),
    ]:
        assert main(["shards", *words]) == 2
        assert reason in capsys.readouterr().err


def test_three_splits_stay_three(tmp_path: Path) -> None:
    source = open_data("digits@val=0.1", limit_train=20, limit_val=10, limit_test=10)
    assert write_shards(source, tmp_path / "out").manifest.images == {"train": 20, "val": 10, "test": 10}
    read = open_data(f"wds:{tmp_path / 'out'}")
    assert read.selects
    assert [label for _, label in map(read.test.__getitem__, range(10))] == [source.test[i][1] for i in range(10)]
