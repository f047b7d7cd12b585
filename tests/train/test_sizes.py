"""Sizes that fit: one rule for the input size of every source, memory before the first step, rates of small batches."""

from pathlib import Path

import pytest
import torch

import layouts as made
from excite.cli.main import main
from excite.data import open_data
from excite.engine.rates import rate_advice
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.runtime import free_memory
from excite.train import TrainConfig
from excite.train.datamodule import sized
from excite.train.fit import steps_advice
from excite.train.memory import check_memory, saved_bytes
from imagesets import add, encoded

SMALL, LARGE = "eca_resnet20", "eca_resnet50"


def folder(root: Path, side: int) -> str:
    for label, name in enumerate(("cat", "dog")):
        for i in range(5):
            # One image of each class is much larger: the median decides, not the first image or the mean.
            made.draw(root / name / f"{i}.png", 10 * label + i, (side + 9, side) if i else (4 * side, 3 * side))
    return f"imagefolder:{root}"


def parquet(root: Path, side: int) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [encoded(i, (side + 9, side) if i else (4 * side, 3 * side)) for i in range(10)]
    pq.write_table(pa.table({"image": pa.array(images), "label": [i % 2 for i in range(10)]}), root / "train.parquet")
    return f"parquet:{root}"


def shards(root: Path, side: int) -> str:
    import tarfile

    with tarfile.open(root / "train.tar", "w") as tar:
        for i in range(10):
            add(tar, f"{i}.png", encoded(i, (side + 9, side) if i else (4 * side, 3 * side)))
            add(tar, f"{i}.cls", str(i % 2).encode())
    return f"wds:{root}/*.tar"


def table(root: Path, side: int) -> str:
    folder(root, side)
    rows = [f"{name}/{i}.png,{name}" for name in ("cat", "dog") for i in range(5)]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    return f"csv:{root}/list.csv"


SOURCES = {"imagefolder": folder, "parquet": parquet, "wds": shards, "csv": table}


@pytest.mark.parametrize(
    ("side", "model", "size", "resize", "words"),
    [
        (16, SMALL, 16, 16, "the images' median side"),
        (32, LARGE, 32, 32, "the images' median side"),
        (64, SMALL, 64, 64, "the images' median side"),
        (64, LARGE, 64, 64, "the images' median side"),
        (100, SMALL, 64, 64, "the most for a network of the CIFAR family"),
        (100, "eca_resnet50_cifar", 64, 64, "the most for a network of the CIFAR family"),
        (100, LARGE, 224, 256, "the usual, the images are larger than 64"),
    ],
)
@pytest.mark.parametrize("kind", SOURCES)
def test_one_rule_for_every_source(
    kind: str, side: int, model: str, size: int, resize: int, words: str, tmp_path: Path
) -> None:
    bundle = open_data(SOURCES[kind](tmp_path, side))
    preprocess, why = sized(bundle, TrainConfig(model, data=bundle.spec))
    assert (preprocess.size, preprocess.resize, why) == (size, resize, words)
    chosen, why = sized(bundle, TrainConfig(model, data=bundle.spec, size=48))
    assert (chosen.size, why) == (48, "--size")


def test_size_0_takes_the_rule_again_where_a_recipe_has_a_size(tmp_path: Path) -> None:
    bundle = open_data(folder(tmp_path, 32))
    recipe = TrainConfig.from_recipe(LARGE, "ecanet-imagenet", data=bundle.spec)
    assert sized(bundle, recipe)[0].size == 224
    without = TrainConfig.from_recipe(LARGE, "ecanet-imagenet", data=bundle.spec, size=0, resize=0)
    assert sized(bundle, without)[0].size == 32


@pytest.mark.parametrize(
    ("name", "size"), [("resnet20", 32), ("eca_resnet20", 32), ("torchvision/mobilenet_v3_small", 64)]
)
def test_the_estimate_is_what_a_step_keeps(name: str, size: int) -> None:
    """Without data it says what the same forward pass keeps with data."""
    network = NetworkSpec(name, 10).build().train()
    own = {p.data_ptr() for p in network.parameters()} | {b.data_ptr() for b in network.buffers()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        network(torch.randn(2, 3, size, size))
    actual = sum(t.untyped_storage().nbytes() for t in kept.values()) / 2
    network.eval()
    estimate = saved_bytes(network, size)
    assert estimate == pytest.approx(actual, rel=0.25)  # kernels for a processor keep a little less
    assert not network.training
    assert all(not p.is_meta for p in network.parameters())


def test_memory_is_estimated_where_a_module_has_two_names() -> None:
    network = NetworkSpec("resnet20", 10).build()
    expected = saved_bytes(network, 32)
    network.again = network.layer1
    assert expected
    assert saved_bytes(network, 32) == expected


def test_frozen_layers_keep_nothing() -> None:
    network = NetworkSpec("resnet20", 10).build()
    whole = saved_bytes(network, 32)
    for parameter in [*network.parameters()][:-2]:
        parameter.requires_grad = False
    assert saved_bytes(network, 32) < 0.2 * whole


def test_a_batch_that_cannot_fit_is_refused_with_one_that_would(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetworkSpec("resnet20", 10).build()
    monkeypatch.setattr("excite.train.memory.free_memory", lambda device: 100 * 2**20)
    config = TrainConfig("resnet20", batch_size=256)
    with pytest.raises(UsageError, match=r"--batch-size 256 at 32 x 32 pixels needs about .* of memory, this machine"):
        check_memory(network, config, 32, "cpu")
    try:
        check_memory(network, config, 32, "cpu")
    except UsageError as error:
        fitting = int(str(error).split("--batch-size ")[2].split()[0])
    assert 30 < fitting < 100
    assert check_memory(network, TrainConfig("resnet20", batch_size=fitting), 32, "cpu") is not None
    with pytest.raises(UsageError, match="a smaller --size may fit"):
        check_memory(network, TrainConfig("resnet20", batch_size=2), 1024, "cpu")
    monkeypatch.setattr("excite.train.memory.free_memory", lambda device: None)
    assert check_memory(network, config, 32, "cpu") is None


class Picky(torch.nn.Module):
    """Needs real numbers, so nothing can be told without data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if bool((x > 0).any()) else -x


def test_a_network_that_needs_numbers_is_not_estimated() -> None:
    assert check_memory(Picky(), TrainConfig("resnet20"), 32, "cpu") is None


def test_it_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("excite.train.memory.free_memory", lambda device: 2**20)
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    assert "of memory, this machine has 0.0 GiB free" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    300 kB\n"}, 300 * 1024),
        ({"proc/meminfo": "MemAvailable: 300 kB", "sys/fs/cgroup/memory.max": "max"}, 300 * 1024),
        (
            {
                "proc/meminfo": "MemAvailable: 300 kB",
                "sys/fs/cgroup/memory.max": "5000",
                "sys/fs/cgroup/memory.current": "1000",
            },
            4000,
        ),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "7", "sys/fs/cgroup/memory/memory.usage_in_bytes": "9"}, 0),
    ],
)
def test_free_memory(files: dict[str, str], free: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory("cpu", tmp_path) == free


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"batch_size": 128}, None),
        ({"batch_size": 4}, "is for 256 images a step, these are 4; by the linear rule that is --lr 0.0016"),
        ({"batch_size": 4, "accumulate": 64}, None),
        ({"batch_size": 4, "lr": 0.002}, None),
        ({"batch_size": 2048, "devices": 2}, "these are 2048; by the linear rule that is --lr 0.8"),
        ({"devices": 8}, None),
        ({"batch_size": 4, "optimizer": "adamw"}, None),
    ],
)
def test_a_rate_for_other_batches_is_named(changes: dict[str, int | float | str], words: str | None) -> None:
    recipe = TrainConfig.from_recipe(LARGE, "ecanet-imagenet")
    advice = rate_advice(TrainConfig.from_recipe(LARGE, "ecanet-imagenet", **changes), recipe)
    assert advice is None if words is None else words in (advice or "")


@pytest.mark.parametrize(
    ("images", "changes", "words"),
    [
        (
            60,
            {"batch_size": 120},
            "60 training images in batches of 120 make 1 step an epoch; --batch-size 4 --lr auto",
        ),
        (600, {"batch_size": 256}, "make 2 steps an epoch; --batch-size 32 --lr auto makes 18"),
        (600, {"batch_size": 256, "devices": 2}, "make 2 steps an epoch; --batch-size 64 --lr auto makes 9"),
        (600, {"batch_size": 120}, None),
        (5, {"batch_size": 4}, None),
    ],
)
def test_few_steps_of_an_epoch_are_named(images: int, changes: dict[str, int], words: str | None) -> None:
    advice = steps_advice(TrainConfig(**changes), images)
    assert advice is None if words is None else words in (advice or "")


def test_memory_is_that_of_the_images_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excite.train.memory.saved_bytes", lambda *a: 2**20)
    monkeypatch.setattr("excite.train.memory.free_memory", lambda device: 2**30)
    model, config = torch.nn.Linear(2, 2), TrainConfig(batch_size=4096)
    assert check_memory(model, config, 32, "cpu", images=20) == "about 0.0 GiB of 1.0 GiB free memory"
    with pytest.raises(UsageError, match="--batch-size 921 would"):
        check_memory(model, config, 32, "cpu", images=4000)
