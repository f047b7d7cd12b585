"""NetworkSpec: builds what create_model builds, survives a file, and a file's spec runs no code."""

import json
from pathlib import Path
from typing import Any

import pytest

import excite
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec, describe, spec_of

HOW = {"size": 32, "resize": 36, "mean": [0.5] * 3, "std": [0.25] * 3}
CARD: dict[str, Any] = {
    "name": "eca_resnet20",
    "num_classes": 2,
    "in_channels": 3,
    "options": {"kernel_size": 5},
    "class_names": ["cat", "dog"],
    "preprocess": HOW,
}


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec("eca_resnet20", 2, options={"kernel_size": 5}, placement="last"),
        NetworkSpec("resnet20", 3, 1, attach="se", attach_sites="stage-ends", attach_options={"reduction": 4}),
        NetworkSpec("emca_eca_resnet20", 4, options={"stages": 1}, class_names=list("abcd"), preprocess=HOW),
    ],
    ids=lambda spec: spec.name,
)
def test_a_spec_survives_a_file(spec: NetworkSpec) -> None:
    again = NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    model = again.build()
    assert spec_of(model) == spec
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in spec.build().state_dict().items()
    }


def test_create_model_goes_through_the_spec() -> None:
    model = excite.create_model("eca_resnet20", num_classes=2, placement="first", kernel_size=5)
    assert spec_of(model) == NetworkSpec("eca_resnet20", 2, options={"kernel_size": 5}, placement="first")
    assert describe(model, class_names=["a", "b"]).class_names == ["a", "b"] == spec_of(model).class_names


def test_cards_of_earlier_versions_are_read() -> None:
    attach = {"method": "se", "sites": ["layer1.0.bn2"], "options": {"reduction": 2}}
    spec = NetworkSpec.from_dict({**CARD, "options": {"kernel_size": 5, "placement": "last"}, "attach": attach})
    assert (spec.placement, spec.options) == ("last", {"kernel_size": 5})
    assert (spec.attach, spec.attach_sites, spec.attach_options) == ("se", ["layer1.0.bn2"], {"reduction": 2})
    assert NetworkSpec.from_dict({**CARD, "of_a_later_version": 1}) == NetworkSpec.from_dict(CARD)
    assert NetworkSpec.from_dict({"name": "resnet18"}).num_classes == 1000


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"num_classes": 10**12}, "num_classes"),
        ({"in_channels": "3"}, "in_channels"),
        ({"options": [1]}, "options"),
        ({"options": {1: 2}}, "options"),
        ({"options": {"kernel_size": {1, 2}}}, "options"),
        ({"options": {"checkpoint_path": "other.pth"}}, "checkpoint_path"),
        ({"options": {"placement": "middle"}}, "placement"),
        ({"placement": 3}, "placement"),
        ({"attach": "se"}, "attach"),
        ({"attach": {"sites": "residual"}}, "method"),
        ({"attach": {"method": "se", "sites": 3}}, "sites"),
        ({"attach": {"method": "se", "options": 3}}, "options"),
        ({"class_names": ["cat"]}, "class_names"),
        ({"class_names": "ab"}, "class_names"),
        ({"class_names": ["cat", 2]}, "class_names"),
        ({"preprocess": [32]}, "preprocess"),
        ({"preprocess": {**HOW, "size": 0}}, "size"),
        ({"preprocess": {**HOW, "size": 8193}}, "size"),
        ({"preprocess": {**HOW, "size": 32.5}}, "size"),
        ({"preprocess": {**HOW, "resize": -1}}, "resize"),
        ({"preprocess": {**HOW, "mean": 0.5}}, "mean"),
        ({"preprocess": {**HOW, "mean": [0.5, 0.5]}}, "mean"),
        ({"preprocess": {**HOW, "mean": [float("nan")] * 3}}, "mean"),
        ({"preprocess": {**HOW, "std": [0.0] * 3}}, "std"),
        ({"preprocess": {**HOW, "std": ["a"] * 3}}, "std"),
        ({"preprocess": {**HOW, "filter": "box"}}, "filter"),
        ({"preprocess": {"size": 32}}, "mean"),
    ],
    ids=str,
)
def test_a_bad_card_is_one_line_that_names_the_entry(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ExciteError) as caught:
        NetworkSpec.from_dict({**CARD, **changes}, "net.ckpt")
    text = str(caught.value)
    assert text.startswith("net.ckpt")
    assert named in text
    assert "\n" not in text


def test_a_spec_from_a_file_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom torch import nn\n"
        "def net(num_classes, wide=1):\n    return nn.Linear(num_classes, wide)\n"
    )
    spec = NetworkSpec.from_dict({**CARD, "name": f"{file}:net", "options": {"wide": 3}}, "net.ckpt")
    with pytest.raises(ExciteError, match=r"net\.ckpt names the Python file .*--model FILE\.py:factory"):
        spec.build()
    assert not (tmp_path / "ran").exists()
    assert spec.renamed(f"{file}:net").build().weight.shape == (3, 2)
    assert (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="no file"):
        spec.renamed("elsewhere/own.py:net").build()
    assert spec.renamed("resnet20") == NetworkSpec("resnet20", 2, class_names=["cat", "dog"], preprocess=HOW)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18", "mine.py:build"])
def test_placement_is_not_ignored_where_it_says_nothing(name: str) -> None:
    with pytest.raises(UsageError, match=r"placement='first'.*attach_sites"):
        excite.create_model(name, placement="first")


def test_cards_of_the_first_format_keep_what_they_meant() -> None:
    """An EMCA network worked on the block's output then and works on its branch now, with the same keys."""
    old = NetworkSpec.from_dict({"name": "emca_eca_resnet20", "num_classes": 10})
    assert old.options == {"where": "block"}
    assert old.build().layer2[0].where == "block"
    assert NetworkSpec.from_dict(old.to_dict()) == old
    new = NetworkSpec("emca_eca_resnet20", 10)
    assert NetworkSpec.from_dict(new.to_dict()).build().layer2[0].where == "branch"
    released = NetworkSpec.from_dict({"name": "emca_eca_resnet20", "options": {"form": "released"}})
    assert released.options == {"form": "released"}
    attached = NetworkSpec.from_dict({"name": "timm/resnet18", "attach": {"method": "emca_se"}})
    assert attached.attach_options == {"where": "block"}
    assert NetworkSpec.from_dict({"name": "eca_resnet20"}).options == {}
