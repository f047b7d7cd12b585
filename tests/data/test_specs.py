import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from excite.data import open_data
from excite.data.arrays import cache
from excite.data.bundle import chosen
from excite.data.preprocess import Preprocess, UnreadableImageError, read_rgb
from excite.errors import ExciteError, UsageError
from imagesets import CLASSES, add, encoded, image_folder, parquet_set, picture, shards


def test_digits_hold_out_is_fixed_and_stratified():
    bundle = open_data("digits")
    assert (len(bundle.train), len(bundle.val)) == (1437, 360)
    assert bundle.class_names == list("0123456789")
    counts = torch.bincount(bundle.val.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    assert bundle.val.images.shape == (360, 3, 16, 16)
    assert bundle.val.images.dtype == torch.uint8
    again = open_data("digits")
    assert torch.equal(bundle.val.images, again.val.images)
    names = {bundle.train.name(i) for i in range(1437)} | {bundle.val.name(i) for i in range(360)}
    assert len(names) == 1797


def test_limits_keep_the_same_images():
    few, more = open_data("digits", limit_train=20), open_data("digits", limit_train=40)
    assert len(few.train) == 20
    assert {few.train.name(i) for i in range(20)} <= {more.train.name(i) for i in range(40)}
    with pytest.raises(UsageError, match="limit_train must be at least 1"):
        open_data("digits", limit_train=0)


def test_limits_are_scattered_over_a_split():
    """The first images of a folder are all of its first class."""
    assert list(chosen(5, None)) == list(chosen(5, 9)) == list(range(5))
    few, more = list(chosen(100, 10)), list(chosen(100, 20))
    assert few == sorted(set(few))
    assert set(few) <= set(more)
    assert few[0] < 30
    assert few[-1] > 70


@pytest.mark.parametrize("kind", ["imagefolder", "parquet", "wds", "digits"])
def test_each_limit_is_of_its_split(tmp_path, kind):
    """Of every split as many images as its own limit says, the same pixels, labels and names as without a limit."""
    makers = {"imagefolder": image_folder, "parquet": parquet_set, "digits": lambda root: None}
    spec = shards(tmp_path) if kind == "wds" else f"{kind}:{makers[kind](tmp_path)}" if kind != "digits" else kind
    whole, part = open_data(spec), open_data(spec, limit_train=3, limit_val=2)
    assert (len(part.train), len(part.val)) == (3, 2)
    for few, every in ((part.train, whole.train), (part.val, whole.val)):
        rows = list(chosen(len(every), len(few)))
        assert [few.name(i) for i in range(len(few))] == [every.name(i) for i in rows]
        for i, row in enumerate(rows):
            (image, label), (same, right) = few[i], every[row]
            assert label == right
            assert np.array_equal(np.asarray(image), np.asarray(same))


def test_an_image_passed_over_leaves_no_gap(tmp_path):
    spec = f"imagefolder:{image_folder(tmp_path)}"
    (tmp_path / "train" / "cat" / "1.png").write_text("broken")
    train = open_data(spec).train
    images, bad = cache(train, 16, skip=True)
    assert [name.endswith("cat/1.png") for name in bad] == [True]
    assert len(images) == len(images.images) == 5
    for i, row in enumerate((0, 2, 3, 4, 5)):
        image, label = train[row]
        assert images[i][1] == label
        assert torch.equal(images[i][0], Preprocess(16, 16).image(image))


def test_digits_of_both_splits_are_different_and_all_there():
    bundle = open_data("digits")
    for split, images in ((bundle.train, 1437), (bundle.val, 360)):
        assert len({split.name(i) for i in range(images)}) == images
    assert not {bundle.train.name(i) for i in range(1437)} & {bundle.val.name(i) for i in range(360)}


def test_imagefolder(tmp_path):
    bundle = open_data(f"imagefolder:{image_folder(tmp_path)}")
    assert bundle.class_names == CLASSES
    assert len(bundle.train) == len(bundle.val) == 6
    image, label = bundle.val[3]
    assert label == 1
    assert np.array_equal(np.asarray(image), np.asarray(picture(100)))
    assert bundle.default_preprocess["size"] == 32  # the images' own: they are 40 x 32


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet(tmp_path, column):
    bundle = open_data(f"parquet:{parquet_set(tmp_path, column=column)}")
    assert bundle.class_names == CLASSES
    assert [bundle.val[i][1] for i in range(6)] == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(np.asarray(bundle.val[2][0]), np.asarray(picture(2, (32, 32))))
    assert bundle.default_preprocess["size"] == 32
    assert bundle.val.name(2) == "test.parquet row 2"


def test_parquet_without_class_names_counts_labels(tmp_path):
    assert open_data(f"parquet:{parquet_set(tmp_path, names=False)}").class_names == ["0", "1"]


def test_real_cifar10(shared_data):
    bundle = open_data(f"parquet:{shared_data}/cifar10", limit_train=50, limit_val=30)
    assert bundle.class_names[:3] == ["airplane", "automobile", "bird"]
    images, bad = cache(bundle.train, 32)
    assert images.images.shape == (50, 3, 32, 32)
    assert not bad


def test_webdataset(tmp_path):
    bundle = open_data(shards(tmp_path))
    assert (len(bundle.train), len(bundle.val)) == (8, 4)
    assert [bundle.val[i][1] for i in range(4)] == [0, 1, 0, 1]
    assert np.array_equal(np.asarray(bundle.train[5][0]), np.asarray(picture(1, (32, 32))))
    assert bundle.class_names == ["0", "1"]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert open_data(f"wds:{tmp_path}/*.tar").class_names == CLASSES


def test_hf_datasets_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    parquet_set(tmp_path / "set")
    bundle = open_data(f"hfds:{tmp_path / 'set'}", limit_train=4)
    limited = open_data(f"hfds:{tmp_path / 'set'}", limit_train=2, limit_val=3)
    assert (len(limited.train), len(limited.val)) == (2, 3)
    for i, row in enumerate(chosen(6, 3)):
        assert limited.val.name(i).endswith(f"row {row}")
        assert np.array_equal(np.asarray(limited.val[i][0]), np.asarray(picture(row, (32, 32))))
    assert bundle.class_names == CLASSES
    assert (len(bundle.train), len(bundle.val)) == (4, 6)
    assert np.array_equal(np.asarray(bundle.val[2][0]), np.asarray(picture(2, (32, 32))))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digit", ["unknown data spec 'digit'", "'digits'"]),
        ("imgfolder:/x", ["'imagefolder:PATH'"]),
        ("zebras", ["known: digits, cifar10"]),
        ("imagefolder", ["written imagefolder:PATH"]),
        ("digits:8", ["written digits"]),
        ("imagefolder:/nowhere/at/all", ["no folder /nowhere/at/all"]),
        ("parquet:/nowhere/at/all", ["no folder /nowhere/at/all"]),
        ("wds:/nowhere/train-{000..999999999999}.tar", ["names more than 200000 shards"]),
        ("wds:/nowhere/train-{000..002}.tar", ["no file /nowhere/train-000.tar"]),
    ],
)
def test_wrong_specs(spec, words):
    with pytest.raises(UsageError) as error:
        open_data(spec)
    for word in words:
        assert word in str(error.value)


def test_folder_without_splits_or_classes(tmp_path):
    with pytest.raises(ExciteError, match="holds no class folders with images"):
        open_data(f"imagefolder:{tmp_path}")
    (tmp_path / "val").mkdir()
    with pytest.raises(UsageError, match=r"there is no folder train in .*, only val"):
        open_data(f"imagefolder:{tmp_path}")
    (tmp_path / "train").mkdir()
    with pytest.raises(ExciteError, match="train holds no class folders"):
        open_data(f"imagefolder:{tmp_path}")
    for split, classes in (("train", ["cat"]), ("val", ["cat", "dog"])):
        for name in classes:
            (tmp_path / split / name).mkdir()
            picture(0).save(tmp_path / split / name / "0.png")
    with pytest.raises(ExciteError, match=r"classes \['dog'\] are in .*val but not in"):
        open_data(f"imagefolder:{tmp_path}")


def test_broken_parquet(tmp_path):
    with pytest.raises(UsageError, match=r"expected train\*.parquet"):
        open_data(f"parquet:{tmp_path}")
    parquet_set(tmp_path, column="picture")
    with pytest.raises(ExciteError, match="needs a column img or image"):
        open_data(f"parquet:{tmp_path}")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ExciteError, match="cannot read parquet files"):
        open_data(f"parquet:{tmp_path}")


def test_parquet_label_out_of_range(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet_set(tmp_path)
    table = pq.read_table(tmp_path / "test.parquet")
    table = table.set_column(1, "label", pa.array([0, 1, 2, 0, 1, 1]))
    pq.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(ExciteError, match="row 2 has label 2; expected 0 to 1"):
        open_data(f"parquet:{tmp_path}")


def test_broken_shards(tmp_path):
    shards(tmp_path)
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        add(tar, "a.png", encoded(0))
    train = open_data(f"wds:{tmp_path}/*.tar").train
    with pytest.raises(UnreadableImageError, match=r"train-000.tar:a: there is no label"):
        train[0]
    assert train[1][1] in (0, 1)
    (tmp_path / "train-001.tar").unlink()
    with pytest.raises(ExciteError, match="sample a has no label"):
        open_data(f"wds:{tmp_path}/*.tar")
    (tmp_path / "train-000.tar").write_bytes(b"no tar at all")
    with pytest.raises(ExciteError, match="cannot read shard"):
        open_data(f"wds:{tmp_path}/*.tar")


def test_unreadable_images_are_named_or_skipped(tmp_path):
    root = image_folder(tmp_path)
    whole = (root / "train/cat/1.png").read_bytes()
    (root / "train/cat/1.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/dog/0.png").write_text("not an image")
    bundle = open_data(f"imagefolder:{root}")
    with pytest.raises(UnreadableImageError, match=r"train/cat/1\.png.*repair or remove it$"):
        bundle.train[1]
    with pytest.raises(UnreadableImageError, match=r"train/cat/1\.png"):
        cache(bundle.train, 16)
    images, bad = cache(bundle.train, 16, skip=True)
    assert len(images) == 4
    assert [b.split("train/")[1] for b in bad] == ["cat/1.png", "dog/0.png"]
    assert images.labels.tolist() == [0, 0, 1, 1]


def test_unreadable_bytes_name_their_row(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"cannot read image row 7: cannot identify image file;"):
        read_rgb(b"nonsense", "row 7")


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_other_modes_become_rgb(tmp_path, mode):
    grey = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    source = Image.fromarray(grey)
    if mode == "I;16":
        source = Image.fromarray(grey.astype(np.uint16) * 256)
    elif mode != "L":
        source = source.convert(mode)
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    source.save(file)
    image = read_rgb(file)
    assert image.mode == "RGB"
    expected = grey if mode == "I;16" else np.asarray(source.convert("L"))
    assert np.abs(np.asarray(image).astype(int) - expected[..., None].astype(int)).mean() < 2


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert read_rgb(tmp_path / "x.png").getpixel((0, 0)) == (255, 255, 255)


def test_cache_resizes_and_keeps_the_middle(tmp_path):
    images, _ = cache(open_data(f"imagefolder:{image_folder(tmp_path)}").val, 32)
    assert images.images.shape == (6, 3, 32, 32)
    expected = np.asarray(picture(0))[:, 4:36]
    assert np.array_equal(images.images[0].permute(1, 2, 0).numpy(), expected)


def test_metadata_that_is_not_json(tmp_path):
    import pyarrow.parquet as pq

    parquet_set(tmp_path)
    table = pq.read_table(tmp_path / "train.parquet").replace_schema_metadata({"huggingface": "{"})
    pq.write_table(table, tmp_path / "train.parquet")
    assert open_data(f"parquet:{tmp_path}").class_names == ["0", "1"]
