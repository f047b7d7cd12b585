"""Files as training scripts write them: weights beside scores, epochs, arguments, optimizers and averaged copies."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references as ref
import torch

import excite
from excite.checkpoints.layouts import recognise
from excite.checkpoints.reading import read_checkpoint
from excite.checkpoints.unwrap import unwrap
from excite.errors import ExciteError

State = dict[str, torch.Tensor]

ONE = (1, 1, 1, 1)


def filled(state: State) -> State:
    """Random values of the shapes of a reference, positive where they are variances."""
    generator = torch.Generator().manual_seed(0)
    values = {}
    for key, value in state.items():
        numbers = torch.randn(value.shape, generator=generator) * 0.05
        if key.endswith("running_var"):
            numbers = 0.5 + numbers.abs()
        values[key] = numbers.to(value.dtype) if value.dtype.is_floating_point else torch.zeros_like(value)
    return values


FAMILIES: dict[str, Callable[[], State]] = {
    "ECA-Net": lambda: ref.resnet(18, ref.eca((3, 3, 5, 7)), depths=ONE, classes=10),
    "ECA-Net MobileNetV2": lambda: ref.mobilenet(0.5, True, classes=10),
    "EMCA": lambda: ref.emca(18, lambda s, b: s + 1, classes=10),
    "EMANet": lambda: ref.resnet(50, spatial=ref.ma(((1, 4, 8, 16),) * 4), stem=3, depths=ONE, classes=10),
    "EPSANet": lambda: ref.resnet(50, spatial=ref.psa((3, 5, 7, 9), (1, 4, 8, 16)), depths=ONE, classes=10),
    "CBAM of EMANet's": lambda: ref.resnet(18, ref.emanet_cbam, stem=3, depths=ONE, classes=10),
    "FcaNet": lambda: ref.resnet(34, ref.fcanet(), depths=ONE, classes=10),
    "SA-Net": lambda: ref.resnet(50, ref.sanet, depths=ONE, classes=10),
    "senet.pytorch": lambda: ref.small_se_resnet(3),
    "SRM": lambda: ref.resnet(18, ref.srm, depths=ONE, classes=10),
    "SE of SRM's": lambda: ref.resnet(18, ref.se(name="rclb.fc", bias=True), depths=ONE, classes=10),
    "GE of SRM's": lambda: ref.resnet(18, ref.ge, depths=ONE, classes=10),
    "CBAM": lambda: ref.resnet(18, ref.cbam(), depths=ONE, classes=10),
    "CBAM channel": lambda: ref.resnet(18, ref.cbam(spatial=False), depths=ONE, classes=10),
    "BAM": lambda: ref.resnet(18, between=ref.bam, stem=3, depths=ONE, classes=10),
    "ResNet of EMANet's": lambda: ref.resnet(18, stem=3, shortcut="shortcut", head="linear", depths=ONE, classes=10),
    "torchvision ResNet": lambda: ref.resnet(18, depths=ONE, classes=10),
    "torchvision MobileNetV2": lambda: ref.mobilenet(0.5, False, classes=10),
}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def optimizer(state: State) -> dict[str, Any]:
    """An SGD state: a momentum buffer per number of a parameter."""
    return {
        "state": {i: {"momentum_buffer": v} for i, v in enumerate(state.values())},
        "param_groups": [{"lr": 0.1, "params": list(range(len(state)))}],
    }


def spoiled(state: State) -> State:
    """Weights that must not be taken."""
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


SCRIPTS: dict[str, Callable[[State], dict[str, Any]]] = {
    "ECA-Net": lambda s: {
        "epoch": 100, "arch": "eca_resnet50", "state_dict": under("module.", s), "best_prec1": torch.tensor([77.48]),
        "optimizer": optimizer(s),
    },
    "EMCA": lambda s: {
        "epoch": 200, "arch": "resnet18", "state_dict": under("module.", s), "best_acc1": torch.tensor(71.0),
        "optimizer": optimizer(s),
    },
    "EMANet": lambda s: {"net": under("module.", s), "acc": 95.2, "epoch": 199},
    "senet.pytorch": lambda s: s,
    "FcaNet": lambda s: {
        "epoch": 100, "arch": "fcanet50", "state_dict": s, "best_prec1": 78.52, "optimizer": optimizer(s),
    },
    "CBAM": lambda s: {
        "epoch": 90, "arch": "resnet", "state_dict": under("module.", s), "best_prec1": torch.tensor(77.6),
        "optimizer": optimizer(s),
    },
    "timm": lambda s: {
        "epoch": 12, "arch": "seresnet50", "state_dict": s, "optimizer": optimizer(s), "version": 2,
        "args": argparse.Namespace(model="seresnet50", lr=0.1), "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": spoiled(s), "metric": np.float64(79.3),
    },
    "torchvision": lambda s: {
        "model": s, "optimizer": optimizer(s), "lr_scheduler": {"last_epoch": 4}, "epoch": 4, "scaler": {"scale": 1.0},
        "args": argparse.Namespace(model="resnet18", mixup_alpha=0.2),
        "model_ema": {"n_averaged": torch.tensor(7), **under("module.", spoiled(s))},
    },
    "Lightning": lambda s: {
        "epoch": 3, "global_step": 400, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": {**under("model.", s), "criterion.weight": torch.ones(10), "ema.module.fc.weight": torch.ones(2)},
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [optimizer(s)], "lr_schedulers": [{}], "hyper_parameters": {"lr": 0.1},
    },
    "scalars among the weights": lambda s: {**s, "epoch": 3, "best": torch.tensor(0.9), "history": [0.1, 0.2]},
    "averages alone": lambda s: {"ema": {"decay": 0.999, "module": under("module.", s)}, "step": torch.tensor(3)},
    "compiled and distributed": lambda s: {"model_state": under("module._orig_mod.", s), "step": torch.tensor(3)},
    "nested": lambda s: {"checkpoint": {"weights": under("model.net.", s)}, "confusion": torch.zeros(10, 10)},
    "in a larger network": lambda s: {"state_dict": {**under("features_of.a.", s), "b.weight": torch.ones(3)}},
    "counted by thop": lambda s: {**s, "total_ops": torch.zeros(1), "layer1.0.conv1.total_params": torch.zeros(1)},
}  # fmt: skip


def check(family: str, scripts: list[str]) -> None:
    """Import a family's weights from dictionaries; compare with the import of the bare weights."""
    state = filled(FAMILIES[family]())
    model, report = excite.import_checkpoint(state)
    side = 224 if family.startswith("GE") else 64  # its convolutions are as large as the maps of 224
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(x)
    assert torch.isfinite(expected).all()
    for script in scripts:
        other, account = excite.import_checkpoint(SCRIPTS[script](state))
        assert (account.layout, account.model, account.options) == (report.layout, report.model, report.options), script
        assert account.loaded.keys() == report.loaded.keys(), script
        with torch.inference_mode():
            assert torch.equal(other(x), expected), script


@pytest.mark.parametrize("family", FAMILIES)
def test_families_in_dictionaries(family: str) -> None:
    """Every family in a few dictionaries, every dictionary with a few families."""
    shift = list(FAMILIES).index(family)
    check(family, [script for i, script in enumerate(SCRIPTS) if (i + shift) % 5 == 0])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_every_dictionary(family: str) -> None:
    check(family, list(SCRIPTS))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_dictionary_as_a_file(script: str, tmp_path: Path) -> None:
    state = filled(ref.small_se_resnet(3))
    content = SCRIPTS[script](state)
    torch.save(content, tmp_path / "model.pth.tar")
    model, report = excite.import_checkpoint(tmp_path / "model.pth.tar")
    for key, value in model.state_dict().items():
        if key in state:
            assert torch.equal(value, state[key]), key
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"])
    beside = [key for key in content if key not in state and "." not in key and not isinstance(content[key], dict)]
    for key in beside:
        assert any(key in note for note in report.notes), (key, report.notes)


def test_averaged_copies_are_reported() -> None:
    state = filled(ref.small_se_resnet(3))
    for script, name in (("timm", "state_dict_ema"), ("torchvision", "model_ema")):
        notes = read_checkpoint(SCRIPTS[script](state)).notes
        assert any(f"averaged weights ({name}), which were not used" in note for note in notes)
    notes = read_checkpoint(SCRIPTS["averages alone"](state)).notes
    assert any("the file has no others" in note for note in notes)


def test_an_optimizer_holds_no_weights() -> None:
    with pytest.raises(ExciteError, match="no tensors; its keys: epoch, optimizer"):
        read_checkpoint({"epoch": 3, "optimizer": optimizer(ref.small_se_resnet(3))})


def test_a_network_may_have_numbers_and_prefixes_of_its_own() -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = torch.nn.Linear(2, 2)
            self.logit_scale = torch.nn.Parameter(torch.tensor(3.0))

    source, target = Own(), Own()
    with torch.no_grad():
        source.logit_scale.fill_(5.0)
    excite.load_checkpoint(target, source.state_dict())
    assert target.logit_scale.item() == 5.0
    assert torch.equal(target.backbone.weight, source.backbone.weight)


def test_every_family_of_a_paper_is_in_the_table() -> None:
    from excite.checkpoints.layouts import LAYOUTS, OURS

    seen = {layout.name for make in FAMILIES.values() if (layout := recognise(make())) is not None}
    others = ("timm", "EMCA-SE")  # with their libraries; as EMCA-ECA
    timm_and_gates = {f.name for f in LAYOUTS if f.name.startswith(others)}
    assert {f.name for f in LAYOUTS} - {OURS.name} - timm_and_gates == seen


@pytest.mark.parametrize("name", ["optimizer", "optim_state", "lr_scheduler", "GradScaler", "criterion", "loss", "rng"])
def test_tensors_of_optimizers_and_the_like_are_no_weights(name: str) -> None:
    """Even under the names of the weights, as momenta often are, and in greater numbers."""
    weights = {"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.weight": torch.zeros(2, 4)}
    momenta = {**{key: value + 1 for key, value in weights.items()}, "fc.bias": torch.ones(2)}
    assert unwrap({"epoch": 3, name: {"momenta": momenta}}) is None
    found = unwrap({name: {"momenta": momenta}, "net": weights})
    assert found is not None
    assert found.state.keys() == weights.keys()
    assert not any(value.any() for value in found.state.values())
