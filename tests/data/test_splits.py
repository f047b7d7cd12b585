"""Who trains, who is watched, who is measured: over all sources, and in what a run says of itself."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from excite.checkpoints.reading import locate
from excite.cli.main import main
from excite.common.holdout import Cut, read_cut
from excite.data import DataBundle, open_data
from excite.data.bundle import Images
from excite.data.splits import hold_out
from excite.errors import UsageError
from excite.train import TrainConfig, fit
from excite.train.summary import show, summarise
from imagesets import CLASSES, add, encoded, image_folder, parquet_set, picture


def folders(root: Path, splits: tuple[str, ...], per_class: int = 10) -> str:
    for number, split in enumerate(splits):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                picture(1000 * number + 100 * label + i, (16, 16)).save(folder / f"{i}.png")
    return f"imagefolder:{root}"


def parquet(root: Path, splits: tuple[str, ...]) -> str:
    parquet_set(root, 10)
    for name, other in (("test", splits[1:]), ("train", splits[:1])):
        content = (root / f"{name}.parquet").read_bytes()
        (root / f"{name}.parquet").unlink()
        for split in other:
            (root / f"{split or 'all'}.parquet").write_bytes(content)
    return f"parquet:{root}"


def shards(root: Path, splits: tuple[str, ...]) -> str:
    import tarfile

    for split in splits:
        with tarfile.open(root / f"{split or 'all'}-000.tar", "w") as tar:
            for i in range(10):
                add(tar, f"{i}.png", encoded(i))
                add(tar, f"{i}.cls", str(i % 2).encode())
    return f"wds:{root}/*.tar"


def saved(root: Path, splits: tuple[str, ...]) -> str:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    rows = {"image": [{"bytes": encoded(i), "path": None} for i in range(10)], "label": [i % 2 for i in range(10)]}
    one = datasets.Dataset.from_dict(rows, features=features)
    if splits == ("",):
        one.save_to_disk(str(root / "set"))
    else:
        names = {"val": "validation"}
        datasets.DatasetDict({names.get(split, split): one for split in splits}).save_to_disk(str(root / "set"))
    return f"hfds:{root / 'set'}"


SOURCES: dict[str, Callable[[Path, tuple[str, ...]], str]] = {
    "imagefolder": folders,
    "parquet": parquet,
    "wds": shards,
    "hfds": saved,
}
# What a source holds -> (what is watched, what is measured, whether the best epoch may be the result).
HELD_OUT: dict[tuple[str, ...], tuple[str, str, bool]] = {
    ("",): ("val", "val", False),
    ("train",): ("val", "val", False),
    ("train", "val"): ("val", "val", False),
    ("train", "test"): ("test", "test", False),
    ("train", "val", "test"): ("val", "test", True),
}


def names(images: Images) -> set[str]:
    return {images.name(i) for i in range(len(images))}


def check(bundle: DataBundle, watched: str, measured: str, selects: bool) -> None:
    assert (bundle.val_name, bundle.test_name, bundle.selects) == (watched, measured, selects)
    assert len(bundle.train)
    assert len(bundle.val)
    assert not names(bundle.train) & (names(bundle.val) | names(bundle.test))
    assert (bundle.val is bundle.test) == (not selects)
    if selects:
        assert not names(bundle.val) & names(bundle.test)
    for images in (bundle.train, bundle.val, bundle.test):  # stratified: all classes everywhere
        assert {images[i][1] for i in range(len(images))} == {0, 1}


@pytest.mark.parametrize("splits", HELD_OUT, ids=lambda s: "+".join(s) or "undivided")
@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_has_held_out_images(kind: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    spec = SOURCES[kind](tmp_path, splits)
    bundle = open_data(spec)
    check(bundle, *HELD_OUT[splits])
    assert any("held out" in note for note in bundle.notes) == (len(splits) == 1)
    again = open_data(spec)
    assert names(again.val) == names(bundle.val)
    if "val" in splits:
        with pytest.raises(UsageError, match="there is a val split already; --val-fraction is for data without one"):
            open_data(spec + "@val=0.2")
        return
    cut = open_data(spec + "@val=0.2")
    check(cut, "val", "test" if "test" in splits else "val", "test" in splits)
    if "test" in splits:
        assert names(cut.test) == names(bundle.test)
        assert names(cut.train) | names(cut.val) == names(bundle.train)
    else:
        both = open_data(spec + "@val=0.2,test=0.3")
        check(both, "val", "test", True)
        total = len(both.train) + len(both.val) + len(both.test)
        assert (len(both.val) / total, len(both.test) / total) == pytest.approx((0.2, 0.3), abs=0.11)
        with pytest.raises(UsageError, match="no images are held out"):
            open_data(spec + "@val=0")


def test_the_second_cut_is_a_share_of_all_images(tmp_path: Path) -> None:
    spec = folders(tmp_path, ("train",), per_class=20)
    usual, cut = open_data(spec), open_data(spec + "@val=0.25,test=0.25")
    assert (len(usual.train), len(usual.val)) == (32, 8)
    assert (len(cut.train), len(cut.val), len(cut.test)) == (20, 10, 10)


def test_digits() -> None:
    whole, cut = open_data("digits"), open_data("digits@val=0.1")
    assert (len(whole.train), len(whole.val), whole.selects, whole.val_name) == (1437, 360, False, "test")
    assert (len(cut.train), len(cut.val), len(cut.test), cut.selects) == (1295, 142, 360, True)
    assert names(cut.test) == names(whole.test)
    splits = [cut.split(which) for which in (None, "test", "val", "train")]
    assert [name for _, name in splits] == ["test", "test", "val", "train"]
    assert [len(images) for images, _ in splits] == [360, 360, 142, 1295]
    for bundle in (whole, cut):  # the held-out images have no part in the statistics
        grey = bundle.train.images.float() / 255  # type: ignore[attr-defined]
        assert bundle.default_preprocess["mean"] == [round(float(grey.mean()), 4)] * 3
        assert bundle.default_preprocess["std"] == [round(float(grey.std()), 4)] * 3
    few = open_data("digits", limit_train=50)
    assert few.default_preprocess == whole.default_preprocess


def test_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Published:
        classes = ("a", "b")

        def __init__(self, root: object, train: bool, download: bool) -> None:
            self.data = np.zeros((40 if train else 10, 32, 32, 3), dtype=np.uint8)
            self.targets = [i % 2 for i in range(len(self.data))]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Published)
    usual, cut = open_data("cifar10"), open_data("cifar10@val=0.25")
    assert (len(usual.train), len(usual.val), usual.val_name, usual.selects) == (40, 10, "test", False)
    assert "so the result is the last epoch" in usual.describe()
    assert (len(cut.train), len(cut.val), len(cut.test), cut.selects) == (30, 10, 10, True)


def test_limits_of_held_out_images(tmp_path: Path) -> None:
    spec = folders(tmp_path, ("train", "val", "test"))
    bundle = open_data(spec, limit_train=7, limit_val=5, limit_test=3)
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == (7, 5, 3)
    assert len(open_data("digits", limit_test=9).val) == 9


@pytest.mark.parametrize("sizes", [[1, 1, 1], [1, 2, 3], [10, 20, 5], [100] * 7, [2] * 30])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
def test_holding_out_keeps_every_class_on_both_sides(sizes: list[int], fraction: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    stay, held = hold_out(labels.tolist(), fraction, 0)
    assert sorted(stay + held) == list(range(len(labels)))
    for label, size in enumerate(sizes):
        kept = int((labels[stay] == label).sum())
        assert kept >= 1
        assert size < 2 or kept < size
        assert abs(size - kept - fraction * size) <= 1
    assert hold_out(labels.tolist(), fraction, 0) == (stay, held)
    if max(sizes) > 50:
        assert hold_out(labels.tolist(), fraction, 1) != (stay, held)


@pytest.mark.parametrize(
    ("spec", "place", "cut"),
    [
        ("digits", "digits", Cut()),
        ("digits@val=0.1", "digits", Cut(0.1)),
        ("imagefolder:/a@b/c@val=0.2,test=0.3", "imagefolder:/a@b/c", Cut(0.2, 0.3)),
        ("imagefolder:/a@test=0.3", "imagefolder:/a", Cut(None, 0.3)),
        ("imagefolder:/me@home", "imagefolder:/me@home", Cut()),
    ],
)
def test_cut_in_a_spec(spec: str, place: str, cut: Cut) -> None:
    assert read_cut(spec) == (place, cut)
    assert cut.written(place) == spec


@pytest.mark.parametrize(
    "spec", ["digits@val=1", "digits@val=-0.1", "digits@val=x", "digits@val=nan", "x@val=.6,test=.6"]
)
def test_impossible_cuts(spec: str) -> None:
    with pytest.raises(UsageError, match=r"fraction|share"):
        open_data(spec)


def test_the_fraction_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is written into the run's data, so that `test` finds the same splits, and the same network of the run."""
    run = tmp_path / "run"
    small = ["--options.width", "4", "--epochs", "2", "--limit-train", "48", "--limit-val", "20", "--workers", "0"]
    assert main(["train", "resnet20", "--val-fraction", "0.1", "--out", str(run), *small, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "held out 142 of 1437 training images as the val split" in said
    assert "on 20 images: best epoch on the validation split" in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"] == "digits@val=0.1"
    assert (summary["recipe"], summary["checkpoint"]) == ("digits", "checkpoints/best.ckpt")
    assert locate(run).name == "best.ckpt"
    assert main(["test", str(run), "--json", "--limit", "30"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["images"], result["note"]) == ("test", 30, None)
    assert main(["test", str(run), "--json", "--split", "val", "--limit", "20"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["top1"]) == ("val", pytest.approx(summary["top1"]))
    assert "optimistic" in result["note"]
    assert main(["train", "--val-fraction", "1", "--out", str(tmp_path / "none")]) == 2
    assert "--val-fraction must be in [0, 1)" in capsys.readouterr().err


def test_data_that_have_their_splits_are_not_cut_again(tmp_path: Path) -> None:
    bundle = open_data("digits", limit_train=20, limit_val=20)
    with pytest.raises(UsageError, match="these data have their splits"):
        fit(TrainConfig("resnet20", val_fraction=0.5, out=str(tmp_path / "run"), quiet=True), bundle=bundle)


def test_the_test_split_never_chooses_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    config = TrainConfig(
        "resnet20", options={"width": 4}, out=str(run), epochs=2, limit_train=32, limit_val=20, workers=0, quiet=True,
        device="cpu",
    )  # fmt: skip
    result = fit(config)
    assert result.top1 == result.rows[-1]["val_top1"]
    assert result.summary["split"] == "test"
    assert locate(run).name == "last.ckpt"
    torch.load(run / "checkpoints/best.ckpt", weights_only=True)  # is there all the same, under its own name
    assert main(["test", str(run / "checkpoints/best.ckpt"), "--limit", "20"]) == 0
    assert "its score is optimistic; the result of the run is that of last.ckpt" in capsys.readouterr().out


ROWS = [
    {"epoch": e, "val_top1": t, "val_top5": 1.0, "seconds": 1.0, "images_per_s": 1.0, "waiting": 0.0}
    for e, t in ((1, 0.5), (2, 0.9), (3, 0.8))
]


@pytest.mark.parametrize(
    ("split", "selects", "top1", "words"),
    [
        (
            "val",
            True,
            0.9,
            "90.00 % / 100.00 % on 9 images: best epoch on the validation split (epoch 2, last 80",
        ),
        ("val", False, 0.8, "80.00 % / 100.00 % on 9 images: last epoch on the validation split (best.ckpt, epoch 2, "),
        ("test", False, 0.8, "90.00 %, is chosen on these images: optimistic)"),
    ],
)
def test_what_a_run_reports(split: str, selects: bool, top1: float, words: str) -> None:
    facts = {
        "run": "r",
        "model": "m",
        "data": "d",
        "parameters": 1,
        "macs": 1,
        "size": 1,
        "data_seconds": 0,
        "unreadable": 0,
    }
    summary = summarise(ROWS, lambda row: row["val_top1"], **facts, val_images=9, split=split, selects=selects)
    assert summary["top1"] == top1
    assert words in show(summary)


def test_a_summary_that_lies_names_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("best.ckpt", "last.ckpt"):
        (tmp_path / "checkpoints" / name).touch()
    for text in ("", "{", "[1]", '{"checkpoint": "/etc/passwd"}', '{"checkpoint": 3}', "[" * 100000):
        (tmp_path / "summary.json").write_text(text)
        assert locate(tmp_path).name == "best.ckpt"
    (tmp_path / "summary.json").write_text('{"checkpoint": "checkpoints/last.ckpt"}')
    assert locate(tmp_path).name == "last.ckpt"


def test_a_set_of_test_images_without_labels_is_passed_over(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "test").mkdir()
    picture(1).save(root / "test/1.png")
    bundle = open_data(f"imagefolder:{root}")
    assert bundle.val_name == bundle.test_name == "val"
    assert any("passed over test/: its 1 images have no labels" in note for note in bundle.notes)
