"""Hosts that the zoo does not name: attention comes and goes without a trace, and what is done around it goes on."""

import copy
import pickle
from typing import Any

import pytest
import timm.utils
import torch
from odd_hosts import HOSTS, Host
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves

import excite
from excite import UsageError, ops

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def lively(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        model(X)  # whatever is made at the first call is there
    return model.eval()


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True))


def attach(model: nn.Module, method: str = "eca") -> Any:
    report = excite.attach(model, method, input_size=(3, 12, 12))
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if ".attention" in name and method != "gct":
            nn.init.normal_(p)
    return report


@pytest.mark.parametrize("name", HOSTS)
def test_attention_comes_and_goes_without_a_trace(name: str) -> None:
    model = lively(HOSTS[name])
    with torch.no_grad():
        before, bare = model(X), copy.deepcopy(model.state_dict())
        assert same(model(X), before)
        assert len(attach(model, "gct").sites) >= 2
        with ops.use("reference"):
            assert same(model(X), before), "the identity leaves every bit"
        excite.detach(model)
        assert same(model(X), before)

        attach(model)
        attended = model(X)
        assert not same(attended, before)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same(twin(X), attended)
            assert same(excite.detach(twin)(X), before)
        model.load_state_dict(bare)
        assert same(model(X), attended)
        other = lively(HOSTS[name])
        attach(other, "eca")
        other.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
        assert same(other(X), attended)
        for averaged in (AveragedModel(model), timm.utils.ModelEmaV3(model)):
            averaged.eval()
            assert same(averaged.module(X), attended)
        excite.detach(model)
        assert list(model.state_dict()) == list(bare)
        assert same(model(X), before)


@pytest.mark.parametrize("name", [n for n in HOSTS if n != "Fixed"])
def test_training_is_the_same_fused_and_module_by_module(name: str) -> None:
    model, grads = lively(HOSTS[name]).double(), []
    attach(model)
    for mode in ("reference", "fused"):
        twin = copy.deepcopy(model).train()
        with ops.use(mode):
            loss = sum(leaf.abs().square().mean() for leaf in tree_leaves(twin(X.double())))
            loss.backward()
        grads.append([p.grad for p in twin.parameters()])
        assert all(g is not None for n, g in zip(dict(twin.named_parameters()), grads[-1], strict=True) if "atten" in n)
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_wrapped_after_and_refused_before() -> None:
    model = lively(Host)
    attach(model)
    with torch.no_grad():
        expected = model(X)
        assert same(nn.DataParallel(model)(X), expected)
    with pytest.raises(UsageError, match=r"wrapped in DataParallel: attach to `model\.module`"):
        excite.attach(nn.DataParallel(lively(Host)), "eca")


def test_layouts_back_and_forth() -> None:
    model = lively(Host)
    attach(model)
    with torch.no_grad():
        expected = model(X)
        last = X.to(memory_format=torch.channels_last)
        for _ in range(2):
            model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(model(last), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)
            model.to(memory_format=torch.contiguous_format)
            assert same(model(X), expected)


@pytest.mark.parametrize("name", ["GroupNormed", "Dictionary"])
def test_compiled_after_attach_and_detached_after_that(name: str) -> None:
    model = lively(HOSTS[name])
    with torch.no_grad():
        before = model(X)
        attach(model)
        expected = model(X)
        compiled = torch.compile(model, backend="eager")
        torch.testing.assert_close(compiled(X), expected, rtol=1e-4, atol=1e-5)
        excite.detach(model)
        assert same(model(X), before)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_quantisation_aware_training_asks_for_a_word_and_then_trains_the_attention() -> None:
    from torch.ao import quantization

    model, config = lively(Host).train(), quantization.get_default_qat_qconfig("fbgemm")
    attach(model)
    model.qconfig = config
    with pytest.raises(UsageError, match="quantisation-aware training set `qconfig` on every module"):
        quantization.prepare_qat(model)
    for module in model.modules():
        module.qconfig = config
    prepared = quantization.prepare_qat(model)
    assert sum(n.endswith("attention") for n, _ in prepared.named_modules()) == 2
    prepared(X).sum().backward()
    assert all(p.grad is not None for n, p in prepared.named_parameters() if ".attention." in n)
