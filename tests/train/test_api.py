"""`excite.fit`: names and networks, specs and data sets."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import lightning as L
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassRecall

import excite
from captured import capture_compiled
from excite.checkpoints.bundle import load_bundle
from excite.cli.main import main
from excite.data import open_data
from excite.data.mapped import bundle_of
from excite.data.splits import labels_of
from excite.detect.config import DetectConfig
from excite.engine.rates import resolve_rate
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig, fit

QUICK = {"epochs": 1, "batch_size": 8, "workers": 0, "quiet": True}


class Squares:
    """Dark and bright squares, as grey PIL images or as tensors."""

    def __init__(self, n: int, kind: str = "pil", classes: tuple[str, ...] = ()) -> None:
        self.n, self.kind = n, kind
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[object, int]:
        if index >= self.n:
            raise IndexError(index)
        bright = index % 2
        if self.kind == "pil":
            return Image.new("L", (12, 12), 40 + 160 * bright), bright
        image = torch.full((3, 12, 12), 40 + 160 * bright, dtype=torch.uint8)
        return (image if self.kind == "tensor" else image.float()), torch.tensor(bright)


def small(outputs: int = 2) -> nn.Module:
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs))
    return nn.Sequential(*layers)


def test_a_name_and_a_spec(tmp_path: Path) -> None:
    result = excite.fit("eca_resnet20", "digits", out=str(tmp_path / "r"), limit_train=16, limit_val=10, **QUICK)
    assert result.summary["recipe"] == "finetune"
    assert load_bundle(result.run)[1].name == "eca_resnet20"


def test_a_bundle_keeps_its_limits(tmp_path: Path) -> None:
    bundle = open_data("digits")
    again = open_data("digits", limit_train=16, limit_val=10)
    model = excite.create_model("resnet20", num_classes=10)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    limits = {"limit_train": 16, "limit_val": 10}
    one = excite.fit(model, bundle, "digits", out=str(tmp_path / "a"), **limits, **QUICK)
    assert (one.summary["train_images"], one.summary["val_images"]) == (16, 10)
    assert not torch.equal(state["conv1.weight"], model.state_dict()["conv1.weight"])  # trained in place
    model.load_state_dict(state)
    two = excite.fit(model, again, "digits", out=str(tmp_path / "b"), **QUICK)
    assert one.rows[0]["train_loss"] == two.rows[0]["train_loss"]
    assert load_bundle(one.run)[1].class_names == bundle.class_names


@pytest.mark.parametrize("kind", ["pil", "tensor"])
def test_own_network_and_own_data(tmp_path: Path, kind: str) -> None:
    data = (Squares(16, kind, ("dark", "bright")), Squares(6, kind))
    result = excite.fit(small(), data, out=str(tmp_path / "r"), **QUICK)
    assert (result.summary["train_images"], result.summary["val_images"]) == (16, 6)
    assert result.summary["size"] == 12
    content = torch.load(result.last, weights_only=True)
    assert content["excite"]["class_names"] == ["dark", "bright"]


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    result = excite.fit(small(), (Squares(8), Squares(4)), out=str(tmp_path / "r"), **QUICK)
    assert torch.load(result.last, weights_only=True)["excite"]["class_names"] == ["0", "1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((Squares(8, "float"), Squares(4)), r"cannot read image Squares\[0\]"),
        ((Squares(0), Squares(4)), "at least one image each"),
        ("digts", "did you mean 'digits'"),
    ],
)
def test_data_that_cannot_work(tmp_path: Path, data: object, message: str) -> None:
    with pytest.raises(ExciteError, match=message):
        excite.fit(small(), data, out=str(tmp_path / "r"), **QUICK)
    assert not (tmp_path / "r").exists()


def test_a_network_of_other_classes_and_wrong_options(tmp_path: Path) -> None:
    model = excite.create_model("resnet20", num_classes=7)
    with pytest.raises(UsageError, match="resnet20 has 7 classes, digits has 10; build it with num_classes=10"):
        excite.fit(model, "digits", out=str(tmp_path / "r"), **QUICK)
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        excite.fit("eca_resnet20", "digits", epoch=3)
    with pytest.raises(
        UsageError, match=r"Sequential gives \[1, 2\] for an image, not \[1, 10\] for the 10 classes of digits"
    ):
        excite.fit(small(2), "digits", out=str(tmp_path / "r"), **QUICK)


def test_a_compiled_fit_leaves_the_network_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture_compiled(monkeypatch)
    model = small()
    excite.fit(model, (Squares(16), Squares(8)), out=str(tmp_path / "r"), compile=True, **QUICK)
    trained = captured.runs
    assert trained >= 3
    model(torch.rand(1, 3, 12, 12))
    assert captured.runs == trained


class Stopwatch(L.Callback):
    """Counts epochs."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs += 1


class Records(Squares):
    """As data sets of the hub give them."""

    def __getitem__(self, index: int) -> dict[str, object]:
        image, label = super().__getitem__(index)
        return {"img": image, "label": label, "id": index}


def test_the_snippet_of_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = (Path(__file__).parents[2] / "docs/training.md").read_text()
    snippet = page.partition("<!-- snippet: fit -->\n```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {"excite": excite, "torch": torch, "network": small(), "Stopwatch": Stopwatch}
    names |= {"train_set": Records(16), "val_set": Records(6)}
    exec(snippet, names)
    result = names["result"]
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(result.best))
    assert len(result.rows) <= 2
    assert set(result.rows[0]) >= {"val_kappa", "val_macro_f1", "val_top1"}
    assert "loss: own" in (result.run / "config.yaml").read_text()
    with pytest.raises(UsageError, match="a loss of its own"):
        fit(TrainConfig.from_run(result.run, quiet=True))
    exec(snippet, names)  # a second time, as a notebook's cell
    assert names["result"].run != result.run


def test_the_loss_and_callbacks_of_the_caller_are_used(tmp_path: Path) -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []
    watch = Stopwatch()

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append((logits.shape, labels.shape))
        return 0 * logits.sum() + 7

    result = excite.fit(
        small(), (Squares(16), Squares(6)), loss=loss, callbacks=[watch], out=str(tmp_path / "r"), **QUICK
    )
    assert [row["val_loss"] for row in result.rows] == [7] * len(result.rows)
    assert watch.epochs == 1
    assert seen[0] == ((8, 2), (8,))
    assert not any("criterion" in key for key in torch.load(result.last, weights_only=True)["state_dict"])
    weighted = excite.fit(small(), (Squares(16), Squares(6)), loss="focal", out=str(tmp_path / "s"), **QUICK)
    assert "loss: focal" in (weighted.run / "config.yaml").read_text()


class Named(list):
    """A list of pairs with names of its classes."""

    classes = ("dark", "bright")


class Failing(Squares):
    """A data set with a fault."""

    targets = [0, 1] * 4

    def __getitem__(self, index: int) -> tuple[object, int]:
        if index == 3:
            raise KeyError("no such file")
        return super().__getitem__(index)


DATA = (Squares(8), Squares(4))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Failing(8), {"metrics": {}}, r"cannot read image Failing\[3\]: KeyError: 'no such file'"),
        (DATA, {"loss": 3}, "loss is int; a function of logits and labels is needed"),
        (DATA, {"loss": "focl"}, "did you mean 'focal'"),
        (DATA, {"loss": nn.Linear(2, 1)}, "the loss has parameters of its own"),
        (DATA, {"loss": lambda a, b: a}, r"the loss gives a tensor of shape \[8, 2\]; a single number"),
        (DATA, {"loss": lambda a, b: 1.0}, "the loss gives float"),
        (DATA, {"metrics": {"kappa": 3}}, "metric kappa is int"),
        (DATA, {"metrics": {"top1": MeanMetric()}}, "cannot be called 'top1'"),
        (DATA, {"metrics": {"a.b": MeanMetric()}}, "cannot be called 'a.b'"),
        (DATA, {"metrics": {"per_class": MulticlassRecall(2, average="none")}}, "metric per_class gives Tensor"),
        (DATA, {"callbacks": [print]}, "is none of Lightning's"),
        (DataLoader(Squares(4)), {}, "data is a DataLoader; give its data set"),
        ((Squares(4), DataLoader(Squares(4))), {}, "the val set is a DataLoader"),
        (3, {}, "data .int. has no length"),
        (None, {}, "data .NoneType. has no length"),
        ((Squares(4),) * 4, {}, "data is 4 data sets"),
        ({"train": Squares(4), "tset": Squares(4)}, {}, "data has the key 'tset'"),
        ({"val": Squares(4)}, {}, "no train among its data sets"),
        (torch.zeros(4, 3, 8, 8), {}, "data is Tensor"),
        (Squares(8), {"val_fraction": 1.5}, "--val-fraction must be in"),
        (Squares(8), {"val_fraction": 0.0}, "no images are held out to validate on"),
        ((iter([]), Squares(4)), {}, "has no length or no"),
        (([(Image.new("L", (8, 8)), "cat")], Squares(4)), {}, r"list\[0\] has the label 'cat'; a whole number"),
        (([(Image.new("L", (8, 8)), -1)], Squares(4)), {}, "has the label -1; classes are counted from 0"),
        (([Image.new("L", (8, 8))] * 2, Squares(4)), {}, "gives Image; a pair"),
        (([{"picture": 1, "y": 0}], Squares(4)), {}, "has the keys picture, y; an image"),
        ((Named([(Image.new("L", (8, 8)), 5)]), Squares(4)), {}, "has the label 5; there are 2 classes"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_a_fit_cannot_take(tmp_path: Path, data: object, options: dict, message: str) -> None:
    with pytest.raises(ExciteError, match=message):
        excite.fit(small(), data, out=str(tmp_path / "r"), **QUICK, **options)


def test_one_data_set_is_divided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**QUICK, "quiet": False, "logger": "none"}
    result = excite.fit(small(), Squares(20), out=str(tmp_path / "r"), **options)
    out = capsys.readouterr().out
    assert "held out 4 of 20 training images as the val split, by class" in out
    assert out.splitlines()[-1] == f"  excite.fit(MODEL, DATA, resume={str(result.run)!r}, epochs=2)"
    assert (result.summary["train_images"], result.summary["val_images"]) == (16, 4)
    again = excite.fit(small(), Squares(20), resume=str(result.run), **{**options, "epochs": 2, "quiet": True})
    assert [row["epoch"] for row in again.rows] == [1, 2]
    three = excite.fit(
        small(), Squares(20), val_fraction=0.1, test_fraction=0.3, out=str(tmp_path / "s"), **{**options, "quiet": True}
    )
    assert (three.summary["train_images"], three.summary["val_images"]) == (12, 2)
    assert "data: python:Squares@val=0.1,test=0.3" in (three.run / "config.yaml").read_text()
    excite.fit(small(), Squares(20), resume=str(three.run), quiet=True, epochs=2)
    for words, said in (
        (["test", str(result.run), "--data", "digits"], "Sequential"),
        (["train", "--resume", str(result.run)], "given by a program"),
    ):
        assert main(words) in (1, 2)
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "counts", "names"),
    [
        (Squares(20), (16, 4, 4), ["0", "1"]),
        ([(Image.new("L", (8, 8), 9 * i), i % 2) for i in range(20)], (16, 4, 4), ["0", "1"]),
        (Subset(Squares(40, classes=("dark", "bright")), range(20)), (16, 4, 4), ["dark", "bright"]),
        (Subset(Failing(8), [0, 1, 2, 4, 5, 6]), (4, 2, 2), ["0", "1"]),
        (Failing(8), (6, 2, 2), ["0", "1"]),
        ((Squares(8), Squares(4)), (8, 4, 4), ["0", "1"]),
        ([Squares(8), Squares(4), Squares(6)], (8, 4, 6), ["0", "1"]),
        ({"test": Squares(6), "train": Squares(8)}, (8, 6, 6), ["0", "1"]),
        ({"train": Squares(8), "validation": Squares(4), "test": Squares(6)}, (8, 4, 6), ["0", "1"]),
    ],
    ids=["one", "list", "subset", "part", "listed", "pair", "triple", "by name", "three by name"],
)
def test_what_data_a_program_may_give(data: object, counts: tuple[int, int, int], names: list[str]) -> None:
    bundle = bundle_of(data, "python:x")
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == counts
    assert bundle.class_names == names
    assert labels_of(bundle.val) == [bundle.val[i][1] for i in range(len(bundle.val))]
    few = bundle_of(data, "python:x", limit_train=4, limit_val=2)
    assert (len(few.train), len(few.val)) == (4, 2)


class Rows(Records):
    """As `datasets` of the hub give them: columns by name, a ClassLabel."""

    column_names: ClassVar = ["img", "label"]
    features: ClassVar = {"label": SimpleNamespace(names=["dark", "bright"])}

    def __getitem__(self, index: int | str) -> object:
        if isinstance(index, str):
            return [i % 2 for i in range(self.n)]
        if index == 3:
            raise AssertionError("images are not read for their labels")
        return super().__getitem__(index)


def test_rows_of_the_hub_are_listed_without_reading_images() -> None:
    bundle = bundle_of(Rows(10), "python:x")
    assert bundle.class_names == ["dark", "bright"]
    assert (len(bundle.train), len(bundle.val)) == (8, 2)
    assert sorted(labels_of(bundle.val)) == [0, 1]


def test_a_rate_follows_the_images_of_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**QUICK, "quiet": False, "logger": "none", "accumulate": 2}
    result = excite.fit(small(), DATA, lr="auto", out=str(tmp_path / "r"), **options)
    rate = 0.03 * 16 / 32
    assert f"lr {rate} (auto: 0.03 of the recipe finetune x 16 / 32 images a step)" in capsys.readouterr().out
    assert yaml.safe_load((result.run / "config.yaml").read_text())["lr"] == rate
    fit(
        TrainConfig.from_run(result.run, lr="auto", epochs=2, quiet=True),
        network=small(),
        bundle=bundle_of(DATA, "python:Squares"),
    )
    for changes, message in (
        ({"optimizer": "adamw"}, "--lr auto scales the rate of the recipe finetune, which is for --optimizer sgd"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"recipe": str(tmp_path / "own.yaml")}, "is 'find'"),
    ):
        (tmp_path / "own.yaml").write_text("lr: find\n")
        with pytest.raises(UsageError, match=message):
            excite.fit(small(), DATA, **{"lr": "auto", **options, **changes})
    recipe = DetectConfig.from_recipe("small")
    detector = DetectConfig.from_recipe("small", lr="auto", batch_size=2)
    detector.check()
    assert resolve_rate(detector, recipe)[0].lr == pytest.approx(recipe.peak_lr * 2 / recipe.batch_size)


def test_a_found_rate_is_written_down_and_gives_the_same_run(tmp_path: Path) -> None:
    options = {**QUICK, "logger": "none", "epochs": 2}
    model = small()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    found = excite.fit(model, (Squares(24), Squares(6)), lr="find", out=str(tmp_path / "a"), **options)
    rate = yaml.safe_load((found.run / "config.yaml").read_text())["lr"]
    assert isinstance(rate, float)
    model.load_state_dict(state)
    given = excite.fit(model, (Squares(24), Squares(6)), lr=rate, out=str(tmp_path / "b"), **options)
    assert [row["train_loss"] for row in given.rows] == [row["train_loss"] for row in found.rows]
    with pytest.raises(UsageError, match=rf"made with --lr {rate}, not find"):
        fit(TrainConfig.from_run(found.run, lr="find"))
    with pytest.raises(UsageError, match="--lr 'find': expected a number or 'auto'"):
        DetectConfig(lr="find").check()
    with pytest.raises(UsageError, match="--lr find looks on one device"):
        TrainConfig(lr="find", devices=2).check()
    with pytest.raises(UsageError, match="--lr 'fnd': expected a number, 'auto' or 'find'"):
        TrainConfig(lr="fnd").check()


def test_the_name_fit_is_the_function_whatever_is_imported_first() -> None:
    module = importlib.import_module("excite.train.fit")
    excite.train.fit = module  # as importing the sub-module does
    assert excite.train.fit is fit is module.fit
