from dataclasses import replace

import pytest
import torch

from excite.checkpoints.bundle import load_bundle, load_exactly, save_bundle
from excite.data.preprocess import Preprocess
from excite.errors import ExciteError, UsageError
from excite.models import create_model, describe, spec_of


def test_round_trip(tmp_path):
    model = create_model("eca_resnet20", num_classes=3, kernel_size=5).eval()
    describe(model, class_names=["a", "b", "c"])
    save_bundle(tmp_path / "m.safetensors", model)
    loaded, card = load_bundle(tmp_path / "m.safetensors")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert (card.name, card.options, card.class_names) == ("eca_resnet20", {"kernel_size": 5}, ["a", "b", "c"])
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_another_architecture_names_keys_and_shapes(tmp_path):
    save_bundle(tmp_path / "m.safetensors", create_model("eca_resnet20", num_classes=10))
    with pytest.raises(ExciteError) as error:
        load_bundle(tmp_path / "m.safetensors", model="se_resnet18_cifar")
    message = str(error.value)
    for part in (
        "m.safetensors does not fit the network se_resnet18_cifar",
        "missing there (",
        "unknown here (",
        "layer1.0.attention.gate.conv.weight",
        "conv1.weight is [16, 3, 3, 3] there and [64, 3, 3, 3] here",
    ):
        assert part in message


def test_a_card_of_its_own_and_keys_that_fit_exactly(tmp_path):
    model = create_model("eca_resnet20", num_classes=3, width=4)
    describe(model, class_names=["a", "b", "c"])
    save_bundle(tmp_path / "m.safetensors", model, replace(spec_of(model), class_names=["x", "y", "z"]))
    assert load_bundle(tmp_path / "m.safetensors")[1].class_names == ["x", "y", "z"]
    for state, says in (
        ({**model.state_dict(), "neck.weight": torch.zeros(2)}, r"resnet20: 1 unknown here \(neck\.weight\)"),
        ({k: v for k, v in model.state_dict().items() if k != "fc.bias"}, r"resnet20: 1 missing there \(fc\.bias\)"),
    ):
        with pytest.raises(ExciteError, match=says):
            load_exactly(model, state, "a file")


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint"):
        load_bundle(tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match="holds no checkpoint"):
        load_bundle(tmp_path)
    (tmp_path / "m.ckpt").write_bytes(b"PK and then nothing")
    with pytest.raises(ExciteError, match=r"cannot read checkpoint .*m\.ckpt"):
        load_bundle(tmp_path / "m.ckpt")
    (tmp_path / "m.ckpt").write_text("junk\n")
    with pytest.raises(ExciteError, match=r"nothing that torch\.save wrote"):
        load_bundle(tmp_path / "m.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(ExciteError, match=r"carries no card.*excite import"):
        load_bundle(tmp_path / "other.ckpt")
    (tmp_path / "m.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ExciteError, match="cannot read"):
        load_bundle(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="carries no card"):
        save_bundle(tmp_path / "x.safetensors", torch.nn.Linear(1, 1))


def test_a_predictor_runs_on_the_device_it_is_given(tmp_path, monkeypatch):
    from excite.train import predictor

    model = create_model("eca_resnet20")
    describe(model, preprocess=Preprocess.usual().to_dict())
    save_bundle(tmp_path / "m.safetensors", model)
    asked = []
    monkeypatch.setattr(predictor, "pick_device", lambda name: asked.append(name) or "meta")
    opened = predictor.open_predictor(tmp_path / "m.safetensors", device="auto").predictor
    assert asked == ["auto"]
    assert {p.device.type for p in opened.network.parameters()} == {"meta"}
    for words in ({"device": "cuda"}, {"model": "resnet20"}):
        with pytest.raises(UsageError, match="is an exported network"):
            predictor.open_predictor(tmp_path / "m.onnx", **words)
