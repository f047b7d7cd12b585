"""The zoo: every network has the sites that the reviewed table says, and attention on it keeps every promise."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.optim.swa_utils import AveragedModel
from zoo_networks import NAMES, SMALL, TABLE, arguments, build, found, inputs

import excite
from excite import ops

EXPECTED = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
QUICK = ["UNet", "Csp", "Yolo", "WaveNet", "Esrgan", "TwoInputs", "DictOutput", "RepNet", "Audio", "Volume", "Fpn"]
SLOW = [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in NAMES]
PROMISES = [pytest.param(n, marks=() if n.removeprefix("shape/") in QUICK else pytest.mark.slow) for n in NAMES]
# What fits no test of minutes: 224 pixels and more by construction.
LARGE = {"torchvision/s3d", "timm/vit_tiny_patch16_224", "timm/mixer_s32_224", "timm/focalnet_tiny_srf"}


def test_the_table_is_complete() -> None:
    assert list(EXPECTED) == NAMES
    assert len(NAMES) >= 80


@pytest.mark.parametrize("name", SLOW)
def test_sites_are_as_reviewed(name: str) -> None:
    entry = found(name, build(name))
    assert entry == EXPECTED[name]


def flat(output: Any) -> list[torch.Tensor]:
    """The tensors of an output, whatever holds them."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [t for value in values for t in flat(value)]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def awake(model: nn.Module) -> nn.Module:
    """Let every branch matter: nothing starts at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return model


@pytest.mark.parametrize("name", PROMISES)
@torch.no_grad()
def test_promises(name: str) -> None:
    expected = EXPECTED[name]
    if "refused" in expected or name in LARGE:
        pytest.skip("refused, or too large to run here")
    model = awake(build(name))
    args, kwargs = inputs(name, model)
    before, bare = model(*args, **kwargs), copy.deepcopy(model.state_dict())
    assert same(model(*args, **kwargs), before), "the host itself repeats its outputs"
    sites = next(iter(expected))
    flat_network = any(isinstance(m, nn.Conv1d | nn.Conv3d) for m in model.modules())

    if not flat_network:
        excite.attach(model, "gct", sites=sites, **arguments(name))
        with ops.use("reference"):
            assert same(model(*args, **kwargs), before), "attention that is the identity changes nothing"
        for x, y in zip(
            flat(model(*args, **kwargs)), flat(before), strict=True
        ):  # fused with a norm it rounds otherwise
            scale = float(y.abs().max()) or 1.0
            torch.testing.assert_close(x / scale, y / scale, rtol=1e-3, atol=1e-3)
        excite.detach(model)

    report = excite.attach(model, "eca", sites=sites, **arguments(name))
    assert len({(s.path, s.place) for s in report.sites}) == len(report.sites)
    attended = model(*args, **kwargs)
    assert not same(attended, before)
    assert same(copy.deepcopy(model)(*args, **kwargs), attended)
    assert same(pickle.loads(pickle.dumps(model))(*args, **kwargs), attended)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    assert same(torch.load(stream, weights_only=False)(*args, **kwargs), attended)

    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    assert same(averaged.module(*args, **kwargs), attended)

    model.load_state_dict(bare)
    assert same(model(*args, **kwargs), attended), "the host's file leaves attention alone"
    other = excite.detach(copy.deepcopy(model))
    own = model.state_dict()
    file = copy.copy(own)  # with its versions, which some networks ask for
    for key in own.keys() - bare.keys():
        del file[key]
    other.load_state_dict(file)
    excite.attach(other, "eca", sites=sites, **arguments(name))
    other.load_state_dict(own)
    assert same(other(*args, **kwargs), attended), "files with attention go both ways"

    with torch.autocast("cpu", torch.bfloat16):
        assert all(t.isfinite().all() for t in flat(model(*args, **kwargs)))
    if not flat_network:
        nhwc = copy.deepcopy(model).to(memory_format=torch.channels_last)
        for x, y in zip(flat(nhwc(*args, **kwargs)), flat(attended), strict=True):
            scale = float(y.abs().max()) or 1.0
            torch.testing.assert_close(x / scale, y / scale, rtol=1e-3, atol=1e-3)

    assert excite.detach(model) is model
    assert list(model.state_dict()) == list(bare)
    assert same(model(*args, **kwargs), before), "detach gives the host back"


@pytest.mark.parametrize("name", ["shape/UNet", pytest.param("shape/RepNet", marks=pytest.mark.slow)])
def test_compiles_and_exports(name: str) -> None:
    model = awake(build(name))
    args, _ = inputs(name, model)
    excite.attach(model, "eca", sites="all-blocks")
    expected = model(*args)
    program = torch.export.export(model, args)
    torch.testing.assert_close(program.module()(*args), expected, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*args), expected, rtol=1e-4, atol=1e-4)
