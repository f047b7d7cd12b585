"""Shards elsewhere: over http, through fsspec, from commands; and that every key is read once, whoever reads it."""

import multiprocessing
import tarfile
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import lightning as L
import pytest
import yaml
from torch.utils.data import Dataset

from excite.data import DataBundle, open_data
from excite.data.bundle import Images
from excite.data.shards import write_shards
from excite.data.specs import RunOf, open_run_data
from excite.engine.config import read_run
from excite.engine.sampling import EpochSampler, Readers, SplitLoader
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit
from imagesets import add, encoded, image_folder, shards


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EXCITE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("places")
    shards(folder / "plain")
    image_folder(folder / "images", per_class=5)
    write_shards(open_data(f"imagefolder:{folder / 'images'}"), folder / "written", shard_size=3)
    return folder / "plain", folder / "written"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(places: tuple[Path, Path]):
    handler = partial(Quiet, directory=str(places[0].parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def content(spec: str) -> list[tuple[str, int, bytes]]:
    bundle = open_data(spec)
    return [
        (images.name(i).rpartition(":")[2], images[i][1], images.encoded(i))
        for images in (bundle.train, bundle.val)
        for i in range(len(images))
    ]


def test_shards_read_alike_wherever_they_are(places, server, own_cache) -> None:
    plain, written = places
    expected = content(f"wds:{plain}/*.tar")
    assert content(f"wds:{server}/plain/{{train-000,train-001,val-000}}.tar") == expected
    memory = fsspec.filesystem("memory")
    for file in plain.glob("*"):
        memory.pipe(f"/bucket/{file.name}", file.read_bytes())
    assert content("wds:memory://bucket/{train-000,train-001,val-000}.tar") == expected
    assert content(f"wds:pipe:cat {plain}/{{train-000,train-001,val-000}}.tar") == expected
    assert content(f"wds:{server}/written/") == content(f"wds:{written}")
    assert open_data(f"wds:{server}/written/").class_names == ["cat", "dog"]
    assert len(list(own_cache.rglob("*.tar"))) == 3 * 3 + len(list(written.glob("*.tar")))


def test_what_was_fetched_is_not_fetched_again(places, server, monkeypatch) -> None:
    spec = f"wds:{server}/plain/{{train-000,val-000}}.tar"
    first = content(spec)

    def refuse(url: str, target: Path) -> None:
        raise ExciteError(f"fetched {url} again")

    monkeypatch.setattr("excite.data.remote._download", refuse)
    assert content(spec) == first


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("SERVER/plain/train-{007,008}.tar", ExciteError, "cannot fetch SERVER/plain/train-00"),
        ("nosuch://place/train-0.tar", UsageError, "cannot fetch nosuch://place/train-0.tar"),
        ("pipe:false train-0.tar", ExciteError, "pipe:false train-0.tar ended with 1: it said nothing"),
        ("pipe:echo broken >&2; exit 3", ExciteError, "ended with 3: broken"),
        ("pipe:printf text", ExciteError, "cannot read shard"),
    ],
)
def test_what_cannot_be_fetched_is_named(server, own_cache, spec: str, kind: type, words: str) -> None:
    with pytest.raises(kind) as raised:
        open_data("wds:" + spec.replace("SERVER", server))
    assert words.replace("SERVER", server) in str(raised.value)
    assert not [p for p in own_cache.rglob("*") if p.is_file() and "partial" in p.name]


def test_commands_come_from_the_keyboard_only(tmp_path: Path) -> None:
    spec = f"wds:pipe:touch {tmp_path / 'run_by_a_file'}"
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"data": spec}))
    for act in (
        lambda: read_run(TrainConfig, run),
        lambda: TrainConfig.from_run(run),
        lambda: open_run_data([RunOf("a.ckpt", None, spec)]),
        lambda: TrainConfig.from_recipe(recipe=str(run / "config.yaml")),
    ):
        with pytest.raises(ExciteError, match="what a file names is not run"):
            act()
    assert TrainConfig.from_run(run, data=spec).data == spec
    assert not (tmp_path / "run_by_a_file").exists()


UNEVEN = (5, 20, 1, 11)  # samples of a shard


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> DataBundle:
    """Keys of one name in several folders and shards; a sample's label is its number."""
    root, number = tmp_path_factory.mktemp("uneven"), 0
    for shard, size in enumerate(UNEVEN):
        for split in ("train", "val"):
            with tarfile.open(root / f"{split}-{shard}.tar", "w") as tar:
                for i in range(size):
                    add(tar, f"folder{i % 2}/{i // 2}.png", encoded(i, (8, 8)))
                    add(tar, f"folder{i % 2}/{i // 2}.cls", str(number + i).encode())
        number += size
    return open_data(f"wds:{root}/*.tar")


class Keys(Dataset):
    """Reads an image from its shard; gives its key, with the shard."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, key: tuple[int, int]) -> str:
        assert self.images[key[1]][1] == key[1]
        return self.images.name(key[1])


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_key_is_read_once(uneven: DataBundle, world: int, workers: int) -> None:
    """37 samples, batches of 2 per process; validation reads all of them, training all but the rest of a division.

    A run that goes on inside the epoch reads what it had not.
    """
    size, first = 2, 2
    splits = {"train": uneven.train, "val": uneven.val}
    n = len(uneven.train)
    read: dict[str, Counter[str]] = {name: Counter() for name in splits}
    for rank in range(world):
        context = multiprocessing.get_context("fork") if workers else None
        readers = Readers({name: Keys(images) for name, images in splits.items()}, list, workers, context)
        for name, seed in (("train", 5), ("val", None)):
            sampler = EpochSampler(n, seed, rank, world)
            sampler.set_epoch(3)
            loader = SplitLoader(readers, name, sampler, size, drop_last=name == "train")
            batches = list(loader)
            loader.first = first
            assert list(loader) == batches[first:]
            read[name].update(key for batch in batches for key in batch)
    assert n == sum(UNEVEN) == 37
    assert read["val"] == Counter(uneven.val.name(i) for i in range(n))
    assert max(read["train"].values()) == 1
    assert set(read["train"]) <= {uneven.train.name(i) for i in range(n)}
    assert len(read["train"]) == n // (size * world) * size * world


class Seen(L.Callback):
    """Counts the images of a run."""

    trained = validated = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained += len(batch[1])

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated += len(batch[1])


@pytest.mark.parametrize(("most", "reads", "batch"), [(1, False, 4), (2, True, 4), (None, True, 1)])
def test_broken_samples_are_counted_named_and_bounded(
    tmp_path: Path, most: int | None, reads: bool, batch: int
) -> None:
    """In batches of one some have no image at all; the epoch is validated as ever."""
    root = image_folder(tmp_path / "images", per_class=6)
    for name in ("cat/1", "dog/4"):
        (root / f"train/{name}.png").write_bytes(b"no image")
    config = TrainConfig(
        "eca_resnet20", data=f"imagefolder:{root}", options={"width": 4, "blocks_per_stage": "1,1,1"}, size=32,
        augment="resized-crop", epochs=1, batch_size=batch, workers=0, device="cpu", quiet=True, logger="none",
        skip_unreadable=True, max_bad=most, out=str(tmp_path / "run"),
    )  # fmt: skip
    if not reads:
        with pytest.raises(ExciteError, match=r"2 images cannot be read, and --max-bad is 1: .*cat/1.png, .*dog/4.png"):
            fit(config)
        return
    result = fit(config, callbacks=[seen := Seen()])
    assert (seen.trained, seen.validated) == (10, 12)
    assert result.rows[0]["val_loss"] > 0
    summary = result.summary
    assert summary["unreadable"] == 2
    assert [Path(name).name for name in summary["unreadable_names"]] == ["1.png", "4.png"]
