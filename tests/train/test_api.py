"""`excite.fit`: names and networks, specs and data sets."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import excite
from captured import capture_compiled
from excite.checkpoints.bundle import load_bundle
from excite.data import open_data
from excite.errors import ExciteError, UsageError

QUICK = {"epochs": 1, "batch_size": 8, "workers": 0, "quiet": True}


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excite.engine.history.draw_curves", lambda rows, panels, path: path.write_bytes(b""))


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
    with pytest.raises(UsageError, match=r"Sequential gives \[1, 2\], not 1 x 10 classes"):
        excite.fit(small(2), "digits", out=str(tmp_path / "r"), **QUICK)


def test_a_compiled_fit_leaves_the_network_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture_compiled(monkeypatch)
    model = small()
    excite.fit(model, (Squares(16), Squares(8)), out=str(tmp_path / "r"), compile=True, **QUICK)
    trained = captured.runs
    assert trained >= 3
    model(torch.rand(1, 3, 12, 12))
    assert captured.runs == trained
