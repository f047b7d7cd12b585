"""`hfds:NAME?stream`: every image once per epoch, whoever reads it; the same order when a run goes on."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from excite.data import open_data
from excite.data.hf import Streaming, read_streaming
from excite.data.shards import verify, write_shards
from excite.engine.sampling import ahead
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit
from excite.train.datamodule import ImageData
from excite.train.loaders import WorkerLoader
from imagesets import CLASSES, image_folder

pytest.importorskip("datasets")
TRAIN, TEST = (5, 11, 2, 9), (3, 4)  # images of a file


def write_files(root: Path, *, names: bool = True) -> Path:
    """Image number i has the colour (i, i, i) and the label i % 2; the test split goes on from the training's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True)
    struct, number = pa.struct([("bytes", pa.binary()), ("path", pa.string())]), 0
    for split, sizes in (("train", TRAIN), ("test", TEST)):
        for part, size in enumerate(sizes):
            numbers, rows = range(number, number + size), []
            for i in numbers:
                buffer = io.BytesIO()
                Image.fromarray(np.full((24, 28, 3), i, dtype=np.uint8)).save(buffer, format="PNG")
                rows.append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
            table = pa.table({"image": pa.array(rows, struct), "label": [i % 2 for i in numbers]})
            if names:
                features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
                table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            pq.write_table(table, root / f"{split}-{part:05d}-of-{len(sizes):05d}.parquet", row_group_size=3)
            number += size
    return root


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        # After each shuffled reading `datasets` sleeps, for its threads to end.
        patch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hfds:{write_files(tmp_path_factory.mktemp('streams') / 'set')}"


@pytest.fixture(scope="module")
def data(place: str) -> ImageData:
    config = TrainConfig("resnet20", data=f"{place}?stream,buffer=4", size=16, batch_size=6, workers=0, augment="none")
    return ImageData(config)


def numbers(loader: WorkerLoader) -> list[list[int]]:
    """The number of every image, by its colour, in batches."""
    batches = [(images[:, 0, 8, 8].tolist(), labels.tolist()) for images, labels in loader]
    assert all(label == number % 2 for images, labels in batches for number, label in zip(images, labels, strict=True))
    return [images for images, _ in batches]


def loaders(data: ImageData, split: str, world: int, workers: int, epoch: int, first: int = 0) -> list[list[list[int]]]:
    """What each of `world` processes reads."""
    from excite.train.loaders import image_readers

    config = TrainConfig("resnet20", batch_size=6, devices=world, workers=workers, augment="none")
    source = data.train_source if split == "train" else data.val_source
    read = []
    for rank in range(world):
        readers = image_readers(config, **{split: (source, data.preprocess.image)})
        loader = WorkerLoader(readers, split, source, config, rank, world)
        loader.set_epoch(epoch)
        loader.first = first
        read.append(numbers(loader))
        assert len(read[-1]) == loader.batches - first
    return read


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 1), (3, 0), (3, 2)])
def test_every_image_is_read_once_whoever_reads_it(data: ImageData, world: int, workers: int) -> None:
    """27 images in four uneven files, six a step; a run that goes on begins inside the epoch."""
    expected = loaders(data, "train", 1, 0, epoch=2)[0]
    shares = loaders(data, "train", world, workers, epoch=2)
    steps = [[part[step] for part in shares] for step in range(4)]
    assert [sorted(i for part in step for i in part) for step in steps] == [sorted(step) for step in expected]
    count = Counter(i for step in steps for part in step for i in part)
    assert max(count.values()) == 1
    assert sum(count.values()) == 24
    assert set(count) <= set(range(27))
    assert loaders(data, "train", world, workers, epoch=2, first=2) == [part[2:] for part in shares]
    watched = [i for part in loaders(data, "val", world, workers, epoch=2) for batch in part for i in batch]
    assert sorted(watched) == list(range(27, 34))


def test_each_epoch_has_an_order_of_its_own(data: ImageData) -> None:
    orders = [[int(row.name.split()[-1].split(".")[0]) for row in data.train_source.rows(s)] for s in (1, 1, 2, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == list(range(27)) for order in orders)
    assert any(order[0] > TRAIN[0] + 4 for order in orders)  # files too are shuffled: the buffer alone has four images
    epochs = [loaders(data, "train", 1, 0, epoch)[0] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]


def test_images_by_number_come_in_the_streams_own_order(place: str, data: ImageData) -> None:
    bundle = open_data(f"{place}?stream", limit_train=8)
    assert (len(bundle.train), len(bundle.val), bundle.class_names) == (8, 7, CLASSES)
    for index in (3, 3, 5, 1, 7):
        image, label = bundle.train[index]
        assert (np.asarray(image)[0, 0, 0], label) == (index, index % 2)
        assert bundle.train.size(index) == (28, 24)
        assert bundle.train.name(index).endswith(f"train row {index}")
    with pytest.raises(IndexError):
        bundle.train[8]
    assert bundle.train.labels == [i % 2 for i in range(8)]
    assert sorted(row.label for row in bundle.train.rows(1)) == [0] * 4 + [1] * 4
    assert bundle.default_preprocess["size"] == 24
    assert not data.cached


def test_what_the_data_do_not_say_is_counted(tmp_path: Path, place: str) -> None:
    plain = f"hfds:{write_files(tmp_path / 'plain', names=False)}"
    bundle = open_data(f"{plain}?stream")
    assert bundle.class_names == ["0", "1"]
    assert bundle.notes[0] == "counted 27 images of train in a pass over their labels"
    assert open_data(f"{place}?stream,train=27,test=7").notes == []
    for told, words in ((26, "more than 26"), (28, "27 and not 28")):
        with pytest.raises(ExciteError, match=rf"holds {words} images; say how many there are: \?stream,train=N"):
            list(open_data(f"{place}?stream,train={told},test=7").train.rows())


def test_a_folder_of_images_streams_and_becomes_shards(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", per_class=3)
    bundle = open_data(f"hfds:{root}?stream")
    assert (len(bundle.train), len(bundle.val), bundle.class_names) == (6, 6, ["cat", "dog"])
    assert bundle.train.labels == [0, 0, 0, 1, 1, 1]
    write_shards(bundle, tmp_path / "shards", shard_size=4)
    assert verify(tmp_path / "shards").images == {"train": 6, "val": 6}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("stream", Streaming()),
        ("stream,buffer=5", Streaming(buffer=5)),
        ("stream,train=10,val=3,test=2", Streaming({"train": 10, "val": 3, "test": 2})),
        ("streams", "streams"), ("", ""), ("buffer=5", "buffer=5"), ("stream,buffer", "buffer"),
        ("stream,buffer=0", "buffer=0"), ("stream,train=-1", "train=-1"), ("stream,dev=3", "dev=3"),
        ("stream,train=1e6", "train=1e6"), ("stream,", ""),
    ],
)  # fmt: skip
def test_the_words_of_a_stream(words: str, expected: Streaming | str) -> None:
    if isinstance(expected, Streaming):
        assert read_streaming(f"hfds:a/b:c?{words}") == ("hfds:a/b:c", expected)
        return
    with pytest.raises(UsageError, match="after \\? expected stream") as raised:
        read_streaming(f"hfds:a/b?{words}")
    assert str(raised.value).endswith(f"found {expected!r}")


def test_what_a_stream_cannot_do_is_refused(place: str, tmp_path: Path) -> None:
    import datasets

    with pytest.raises(UsageError, match="cannot be divided, and it has no val split"):
        open_data(f"{place}?stream@val=0.2")
    rows = datasets.Dataset.from_dict({"image": [], "label": []})
    rows.save_to_disk(tmp_path / "saved")
    with pytest.raises(UsageError, match="leave \\?stream out"):
        open_data(f"hfds:{tmp_path / 'saved'}?stream")
    for changes, words in (({"balance": "sampler"}, "take --balance loss"), ({"cache": 1.0}, "--cache keeps images")):
        config = TrainConfig("resnet20", data=f"{place}?stream", size=16, workers=0, **changes)
        with pytest.raises(UsageError, match=words):
            ImageData(config).train_dataloader()


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(iter(sorted(write_files(tmp_path / "set").glob("train-00000*"))))
    table = pq.read_table(file)
    images = table.column("image").to_pylist()
    images[1], images[2] = {"bytes": b"no image", "path": "bad.png"}, None
    field = table.schema.get_field_index("image")
    pq.write_table(table.set_column(field, "image", pa.array(images, table.schema.field("image").type)), file)
    config = {
        "options": {"width": 4, "blocks_per_stage": "1,1,1"},
        "size": 16,
        "epochs": 1,
        "batch_size": 9,
        "workers": 0,
    }
    config |= {"quiet": True, "logger": "none", "device": "cpu", "out": str(tmp_path / "run"), "skip_unreadable": True}
    summary = fit(TrainConfig("resnet20", data=f"hfds:{tmp_path / 'set'}?stream", **config)).summary
    assert summary["unreadable"] == 2
    assert any(name.endswith("train bad.png") for name in summary["unreadable_names"])


def test_a_thread_that_reads_ahead_keeps_order_and_errors() -> None:
    taken: list[int] = []

    def source():
        for i in range(100):
            taken.append(i)
            yield i
        raise ExciteError("the end")

    with pytest.raises(ExciteError, match="the end"):
        assert list(ahead(source(), 3)) is None
    assert taken == list(range(100))
    taken.clear()
    reading = ahead(source(), 3)
    assert [next(reading) for _ in range(2)] == [0, 1]
    reading.close()
    assert len(taken) <= 2 + 3 + 2
