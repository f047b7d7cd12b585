"""Whole networks against the originals: weights by the golden rule, through import_checkpoint, in float64."""

from typing import Any

import pytest
import torch
from torch import nn

import excite
import goldens
from excite.checkpoints import TransferReport

NAMES = sorted(p.stem for p in (goldens.FOLDER / "models").glob("*.json") if "grad" not in p.stem)
# Train mode costs seconds for the large ones: every family trains here once, the others behind `slow`.
TRAINED = (
    "ecanet__eca_mobilenet_v2",
    "ecanet__eca_resnet18",
    "emca__eca_resnet18",
    "emca__eca_resnet50",
    "jongchan__cbam_resnet50",
    "timm__resnet50_se",
    "torchvision__mobilenet_v2",
)


def imported(name: str) -> tuple[dict[str, Any], nn.Module, TransferReport]:
    data = goldens.load(f"models/{name}")
    model, report = excite.import_checkpoint(goldens.fill_state(data))
    return data, model, report


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def running_statistics(model: nn.Module) -> torch.Tensor:
    found = [b.double().flatten() for k, b in model.named_buffers() if k.endswith(("running_mean", "running_var"))]
    return torch.cat(found)


def check_training(data: dict[str, Any], model: nn.Module, report: Any) -> None:
    without_dropout(model).train()
    out = model(goldens.make_input(data))
    goldens.check_output(out, data["train"])
    loss = out.square().mean()
    assert abs(float(loss.detach()) - data["loss"]) <= 1e-8 * data["loss"]
    loss.backward()
    ours = {theirs: key for key, theirs in report.loaded.items()}
    parameters = dict(model.named_parameters())

    def gradient(key: str) -> torch.Tensor | None:
        return parameters[ours[key]].grad if key in ours else None

    goldens.check_gradients(data, data["grad_l2"], gradient)
    after, expected = running_statistics(model), data["running_after_train"]
    assert abs(float(after.norm()) - expected["l2"]) <= 1e-8 * expected["l2"]
    assert abs(float(after.sum()) - expected["sum"]) <= 1e-8 * expected["l2"] * len(after) ** 0.5


def test_golden_files_are_there() -> None:
    assert len(NAMES) == 20
    assert set(TRAINED) <= set(NAMES)


# Others of the same family and depth run by default.
REPEATS = ("emanet_repo__resnet50", "emanet_repo__eca_resnet50", "emanet_repo__fcanet50", "timm__resnet50_eca")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in REPEATS else n for n in NAMES])
def test_imported_network_equals_the_original(name: str) -> None:
    data, model, report = imported(name)
    unused = sum(1 for reason in report.ignored.values() if "never uses" in reason)
    learned = sum(p.numel() for p in model.parameters())
    assert report.complete
    if not unused:
        assert learned == data["param_count"]
    with torch.no_grad():
        goldens.check_output(model(goldens.make_input(data)), data["eval"])
    if name in TRAINED:
        check_training(data, model, report)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(TRAINED)))
def test_imported_network_trains_like_the_original(name: str) -> None:
    check_training(*imported(name))


def test_released_emca_leaves_out_what_is_never_used() -> None:
    data, model, report = imported("emca__eca_resnet18")
    unused = [k for k, reason in report.ignored.items() if "never uses" in reason]
    sizes = {key: torch.Size(shape).numel() for key, shape, _ in goldens.entries(data)}
    assert len(unused) == 12
    assert sum(p.numel() for p in model.parameters()) == data["param_count"] - sum(sizes[k] for k in unused)
    null = {k for k, g in zip(goldens.learned_keys(data), data["grad_l2"], strict=True) if g is None}
    assert null == set(unused)


def test_a_changed_weight_changes_the_output() -> None:
    data = goldens.load("models/ecanet__eca_resnet18")
    state = goldens.fill_state(data)
    state["layer1.0.eca.conv.weight"] = state["layer1.0.eca.conv.weight"] * 1.001
    model, _ = excite.import_checkpoint(state)
    with torch.no_grad(), pytest.raises(AssertionError):
        goldens.check_output(model(goldens.make_input(data)), data["eval"])
