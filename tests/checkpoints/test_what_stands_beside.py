"""What stands beside weights and is read as nothing, what is refused, and which of two sets of weights is taken."""

import argparse
import collections
import datetime
import decimal
import pathlib
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references as ref
import torch

import excite
from excite.checkpoints.inert import harmless
from excite.checkpoints.reading import read_checkpoint
from excite.errors import ExciteError

HOLDERS: dict[str, Any] = {
    "path": pathlib.Path("/data/run"),
    "path of Windows": pathlib.PureWindowsPath("c:/run"),
    "array": np.random.default_rng(0).standard_normal((3, 4)),
    "array of objects": np.array([1, "a", None], dtype=object),
    "array of texts": np.array(["a", "b"]),
    "record array": np.zeros(2, dtype=[("a", "f4")]),
    "numpy scalar": np.float32(1),
    "numpy date": np.datetime64("2020-01-01"),
    "numpy generators": [np.random.default_rng(0), np.random.RandomState(0)],
    "namespace": argparse.Namespace(out=pathlib.Path("x"), lr=np.float64(0.1), names={"a"}),
    "simple namespace": types.SimpleNamespace(a=1),
    "default dictionary": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2], maxlen=3),
    "counter": collections.Counter("aab"),
    "user dictionary": collections.UserDict(a=1),
    "times": [datetime.datetime(2020, 1, 1), datetime.timedelta(3), datetime.date(2020, 1, 1)],
    "others": [decimal.Decimal("0.1"), uuid.UUID(int=1), frozenset([1]), slice(3), 1j, b"x", torch.Size([3])],
}


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in ref.small_se_resnet(3).items()}


@pytest.mark.parametrize("name", list(HOLDERS))
@pytest.mark.parametrize("packed", [True, False])
def test_holders_of_values_are_passed_over(name: str, packed: bool, small: dict, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"state_dict": small, "beside": HOLDERS[name]}, path, _use_new_zipfile_serialization=packed)
    checkpoint = read_checkpoint(path)
    assert checkpoint.weights.keys() == small.keys()
    assert any("beside" in note for note in checkpoint.notes)


def test_dictionaries_of_other_libraries(small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("easydict")
    EasyDict = type("EasyDict", (dict,), {"__module__": "easydict"})
    module.EasyDict = EasyDict
    monkeypatch.setitem(sys.modules, "easydict", module)
    hyper = EasyDict(lr=0.1, inner=EasyDict(path=pathlib.Path("x")))
    hyper.lr = 0.1  # attributes beside the entries
    weights = {f"model.{key}": value for key, value in small.items()}
    torch.save({"state_dict": weights, "hyper_parameters": hyper, "epoch": 3}, tmp_path / "x.ckpt")
    _, report = excite.import_checkpoint(tmp_path / "x.ckpt")
    assert report.model == "se_resnet20"


def test_stand_ins_build_nothing_that_they_are_named_after() -> None:
    foreign = [entry[0] for entry in harmless() if isinstance(entry, tuple)]
    assert {kind.__module__ for kind in foreign} == {"excite.checkpoints.inert"}
    names = [entry[1] for entry in harmless() if isinstance(entry, tuple)]
    assert len(set(names)) == len(names)
    assert not {"eval", "exec", "getattr", "setattr", "open", "__import__", "compile", "type", "object"} & {
        name.rpartition(".")[2] for name in names
    }


class Opaque:
    """A class of somebody's own script."""


def test_other_classes_are_named(small: dict, tmp_path: Path) -> None:
    torch.save({"state_dict": small, "args": argparse.Namespace(hook=Opaque())}, tmp_path / "x.pth")
    with pytest.raises(ExciteError, match=r"needs \S*Opaque to be run or built.*save its weights alone"):
        read_checkpoint(tmp_path / "x.pth")
    torch.save({"state_dict": small}, tmp_path / "y.pth", pickle_protocol=4)
    with pytest.raises(ExciteError, match=r"protocol 2.*save it again"):
        read_checkpoint(tmp_path / "y.pth")


def filled(state: dict, number: float) -> dict:
    return {key: torch.full_like(value, number) for key, value in state.items()}


def under(prefix: str, state: dict) -> dict:
    return {prefix + key: value for key, value in state.items()}


# Where the model's own weights (all 1) and their running average (all 2) are, as training scripts have them.
BOTH = {
    "timm": lambda s: {"state_dict": filled(s, 1), "state_dict_ema": filled(s, 2)},
    "torchvision": lambda s: {
        "model": filled(s, 1),
        "model_ema": {"n_averaged": torch.tensor(7), **under("module.", filled(s, 2))},
    },
    "within the keys": lambda s: {
        "state_dict": {**under("model.", filled(s, 1)), **under("ema_model.module.", filled(s, 2))}
    },
    "Lightning": lambda s: {
        "state_dict": under("model.", filled(s, 2)),
        "current_model_state": under("model.", filled(s, 1)),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
    "flat": lambda s: {**filled(s, 1), **under("ema.", filled(s, 2))},
}


@pytest.mark.parametrize("script", list(BOTH))
def test_which_weights_are_taken(script: str, small: dict) -> None:
    content = BOTH[script](small)
    for which, number in (("auto", 1.0), ("model", 1.0), ("ema", 2.0)):
        model, report = excite.import_checkpoint(content, weights=which)
        assert model.fc.bias[0].item() == number, which
        words = "these are averaged weights; the model's own" if which == "ema" else "which were not used"
        assert any(words in note for note in report.notes), report.notes
        own = excite.create_model(report.model, num_classes=small["fc.weight"].shape[0])
        excite.load_checkpoint(own, content, weights=which)
        assert own.fc.bias[0].item() == number, which


def test_only_one_kind(small: dict) -> None:
    with pytest.raises(ExciteError, match="has no averaged weights"):
        excite.import_checkpoint({"state_dict": small}, weights="ema")
    with pytest.raises(ExciteError, match="has no weights but averaged ones"):
        excite.import_checkpoint({"ema": small}, weights="model")
    assert any("no others" in note for note in excite.import_checkpoint({"ema": small})[1].notes)


def test_an_attention_called_ema_is_no_average(small: dict) -> None:
    network = excite.create_model("ema_resnet18", blocks_per_stage="1,1,1,1", num_classes=3)
    other = excite.create_model("ema_resnet18", blocks_per_stage="1,1,1,1", num_classes=3)
    report = excite.load_checkpoint(other, {"state_dict": network.state_dict()}, weights="model")
    assert report.complete
