"""Checkpoints of every broken kind: one line that names file and entry; no code, no traceback, not much memory."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import excite
from excite.card import is_plain
from excite.checkpoints import import_checkpoint, load_checkpoint
from excite.errors import ExciteError
from excite.models import NetworkSpec

Content = dict[str, Any]
HOW = {"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
CARD = NetworkSpec("eca_resnet20", 4, options={"width": 4}, class_names=list("abcd"), preprocess=HOW).to_dict()
ODD: dict[str, Any] = {
    "none": None,
    "list": [1],
    "text": "x",
    "true": True,
    "nan": float("nan"),
    "infinity": float("inf"),
    "negative": -1,
    "zero": 0,
    "huge": 10**5000,
    "tensor": torch.zeros(2),
    "bytes": b"x",
}


def laughs(value: object = "ha") -> object:
    """A list of lists of lists: nothing in memory, more than any machine holds when it is written out."""
    for _ in range(8):
        value = [value] * 1000
    return value


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return NetworkSpec.from_dict(CARD).build().state_dict()


def content_of(weights: dict[str, torch.Tensor]) -> Content:
    card = json.loads(json.dumps(CARD))
    return {"excite": card, "state_dict": {f"model.{k}": v for k, v in weights.items()}, "excite_config": {"data": "x"}}


def refused(file: Path, content: Content, verbs: tuple[Callable[[Path], object], ...] = (excite.load,)) -> str:
    torch.save(content, file)
    reason = ""
    for verb in verbs:
        with pytest.raises(ExciteError) as caught:
            verb(file)
        reason = str(caught.value)
        assert str(file) in reason
        assert len(reason.splitlines()) == 1
        assert len(reason) < 2000
    return reason


def test_the_file_itself_is_read(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(content_of(weights), tmp_path / "x.ckpt")
    assert excite.load(tmp_path / "x.ckpt").excite_card.num_classes == 4


FINE = {("attach", "none"), ("class_names", "none"), ("preprocess", "none")}  # there may be none
FINE |= {("resize", "none"), ("resize", "zero")}  # as large as size
FINE |= {("mean", "list"), ("std", "list")}  # one number for all channels


def test_every_entry_of_a_card_may_be_anything(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "x.ckpt"
    for key in CARD:
        for name, odd in [*ODD.items(), ("nested", laughs())]:
            if (key, name) in FINE:
                continue
            content = content_of(weights)
            content["excite"][key] = odd
            refused(file, content)
    for key in HOW:
        for name, odd in [*ODD.items(), ("nested", laughs()), ("large", 200_000), ("strings", ["a"] * 3)]:
            if (key, name) in FINE:
                continue
            content = content_of(weights)
            content["excite"]["preprocess"][key] = odd
            refused(file, content)


CHANGES: dict[str, tuple[Callable[[Content], object], str]] = {
    "few names": (lambda c: c["excite"].update(class_names=["a"]), "1 class names for 4 classes"),
    "many names": (lambda c: c["excite"].update(class_names=["a"] * 9), "9 class names"),
    "no preprocess keys": (lambda c: c["excite"].update(preprocess={}), "'size' in its card is None"),
    "size 0": (lambda c: c["excite"]["preprocess"].update(size=0), "'size' in its card is 0"),
    "size 200000": (lambda c: c["excite"]["preprocess"].update(size=200_000), "'size' in its card is 200000"),
    "no state_dict": (lambda c: c.pop("state_dict"), "holds a card and no weights"),
    "state_dict is a list": (lambda c: c.update(state_dict=[1]), "holds a card and no weights"),
    "config is a list": (lambda c: c.update(excite_config=[1]), "its configuration is list"),
    "config says no data": (lambda c: c.update(excite_config={"data": ["x"]}), "says data: ['x'], which is no text"),
    "config holds tensors": (lambda c: c.update(excite_config={"data": torch.zeros(1)}), "its configuration says data"),
    "config has no end": (lambda c: c.update(excite_config={"a": laughs()}), "its configuration holds"),
    "a million classes": (lambda c: c["excite"].update(num_classes=10**6, class_names=None), "does not fit"),
    "a wide network": (lambda c: c["excite"].update(options={"width": 2**18}), "does not fit"),
    "wide in words": (
        lambda c: c["excite"].update(options={"width": 4, "kernel_size": "999999,3,3"}),
        "cannot be built",
    ),
    "many channels": (lambda c: c["excite"].update(in_channels=65_536, preprocess=None), "does not fit"),
    "timm with an odd option": (
        lambda c: c["excite"].update(name="timm/resnet18", options={"block_args": {"a": 1}}),
        "cannot be built",
    ),
    "a thousand foreign layers": (
        lambda c: c["excite"].update(name="timm/resnet18", options={"layers": [1000, 1000, 1000, 1000]}),
        "than the file holds",
    ),
    "a million foreign layers": (
        lambda c: c["excite"].update(name="timm/convnext_atto", options={"depths": [2**20] * 4}),
        "than the file holds",
    ),
    "a wide foreign network": (
        lambda c: c["excite"].update(name="torchvision/resnet50", options={"width_per_group": 1000}),
        "far more numbers than the file holds",
    ),
    "a number of no size": (lambda c: c["excite"].update(options={"x": 2**21}), "numbers (up to 1048576)"),
    "no such network": (lambda c: c["excite"].update(name="eca_resnet2000000"), "cannot be built"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_is_wrong_is_named(name: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    change, words = CHANGES[name]
    content = content_of(weights)
    change(content)
    assert words in refused(tmp_path / "x.ckpt", content)


def test_an_archive_that_unpacks_to_more_than_it_is(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(content_of(weights), tmp_path / "x.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "x.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    with pytest.raises(ExciteError, match="its parts are compressed"):
        excite.load(tmp_path / "bomb.ckpt")


def test_a_block_of_a_high_number_asks_for_no_others(tmp_path: Path) -> None:
    content = {
        k: v.clone() for k, v in NetworkSpec("eca_resnet50", 4).build().state_dict().items() if "layer4.2" not in k
    }
    content["layer1.999999.conv1.weight"] = torch.zeros(1)
    assert "one of number 999999" in refused(tmp_path / "x.pth", content, (import_checkpoint,))


KEY = "fc.bias"
TENSORS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "sparse": (lambda t: t.to_sparse(), "torch.sparse_coo; weights are plain"),
    "huge and sparse": (
        lambda t: torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (10**12,)),
        "weights are plain",
    ),
    "meta": (lambda t: t.to("meta"), "has a shape and no numbers"),
    "complex": (lambda t: t.to(torch.complex64), "weights are plain, dense, real numbers"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "weights are plain"),
    "a single number, repeated": (lambda t: torch.zeros(1).expand(10**12), "holds fewer numbers than that"),
    "whole numbers": (lambda t: t.long(), "holds whole numbers (torch.int64), the network's real numbers"),
    "truth values": (lambda t: t.bool(), "holds whole numbers (torch.bool)"),
    "nan": (lambda t: t * float("nan"), "not finite"),
    "infinity": (lambda t: t + float("inf"), "not finite"),
    "infinity in 8 bits": (lambda t: (t * float("nan")).to(torch.float8_e4m3fn), "not finite"),
    "another shape": (lambda t: t[:1].clone(), "does not fit"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(TENSORS))
def test_weights_are_plain_finite_numbers(name: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    change, words = TENSORS[name]
    content = content_of(weights)
    content["state_dict"][f"model.{KEY}"] = change(weights[KEY])
    assert words in refused(tmp_path / "x.ckpt", content)
    # The same without a card: what is imported, and what is put into a given network.
    network = NetworkSpec.from_dict(CARD).build()
    if name != "another shape":
        plain = {**weights, KEY: change(weights[KEY])}
        verbs = (import_checkpoint, lambda file: load_checkpoint(network, file))
        assert words in refused(tmp_path / "plain.pth", plain, verbs)


def test_counters_are_whole_numbers(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    content = content_of(weights)
    key = next(k for k in content["state_dict"] if k.endswith("num_batches_tracked"))
    content["state_dict"][key] = torch.tensor(1.5)
    assert "holds real numbers (torch.float32), the network's whole numbers" in refused(tmp_path / "x.ckpt", content)


def test_half_precision_is_still_taken(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        content = content_of(weights)
        content["state_dict"] = {
            k: v.to(dtype) if v.is_floating_point() else v for k, v in content["state_dict"].items()
        }
        torch.save(content, tmp_path / "x.ckpt")
        assert excite.load(tmp_path / "x.ckpt").fc.bias.dtype == torch.float32


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"x"', '{"name": 1e400}', "[" * 100_000, "9" * 5000, '{"name": "\\ud800"}']
)
def test_cards_of_safetensors(text: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file(weights, file, metadata={"excite": text})
    with pytest.raises(ExciteError, match=r"x\.safetensors") as caught:
        excite.load(file)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet"])
@pytest.mark.parametrize(
    "options",
    [{"neck_channels": 2**18}, {"anchor_sizes": [[1, 2], "a"]}, {"no_such": 1}, {"min_size": [0]}, {"x": "y"}],
)
def test_detectors(kind: str, options: Content, tmp_path: Path) -> None:
    card = {"kind": kind, "backbone": "eca_resnet20", "num_classes": 3, "options": options}
    content = {"excite_detector": card, "state_dict": {"detector.a": torch.zeros(1)}}
    refused(tmp_path / "x.ckpt", content)


def test_mappings_in_circles(tmp_path: Path) -> None:
    circle: Content = {}
    circle |= {str(i): circle for i in range(200)}
    assert "holds no tensors" in refused(tmp_path / "x.pth", circle, (import_checkpoint,))


def test_plain_values_are_bounded() -> None:
    assert is_plain({"a": [1, 2.5, None, True, "x"], "b": {"c": [[1]]}})
    for value in (
        laughs(),
        {"a": laughs({"a": 1})},
        2**64,
        "x" * 200_000,
        {1: 2},
        object(),
        b"",
        [[[[[[[[[[1]]]]]]]]]],
    ):
        assert not is_plain(value)
