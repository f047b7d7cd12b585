"""Every method of the registry, on 1-D, 2-D and 3-D networks."""

import pytest
import torch
from attach_hosts import Plain, Residual, build

import excite
from excite import UsageError
from excite.inspect.trace import run_on_meta
from excite.registry import get_method, list_methods

RESIDUAL = [m for m in list_methods() if get_method(m).role == "residual" and m != "none"]
NETWORK = [m for m in list_methods() if get_method(m).role == "network"]
# Values at which a method fits the 16 and 32 channels of the small host.
OPTIONS = {"sa": {"groups": 4}}


def host(dims: int, width: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    return Residual(dims, width).eval()


def trained_once(model: torch.nn.Module, x: torch.Tensor) -> None:
    model.train()
    model(x).square().mean().backward()
    missing = [k for k, p in model.named_parameters() if p.grad is None]
    assert not missing, f"no gradient: {missing}"


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("method", [*RESIDUAL, *NETWORK])
def test_method(method: str, dims: int) -> None:
    card = get_method(method)
    model = host(dims)
    x = torch.randn(3, 2, *[12] * dims)
    before = model(x)
    size = (2, *[12] * dims)
    if dims not in card.dims:
        with pytest.raises(UsageError, match=f"a {dims}-D network"):
            excite.attach(model, method, input_size=size)
        assert torch.equal(model(x), before)
        return
    report = excite.attach(model, method, input_size=size, **OPTIONS.get(method, {}))
    assert len(report.sites) == (2 if card.role == "network" else 4)
    after = model(x)
    assert torch.equal(after, before) or not card.identity_at_init
    assert torch.isfinite(after).all()
    trained_once(model, x)
    excite.detach(model)
    fresh = host(dims)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), fresh(x))


def test_the_added_cost_is_that_of_attention_alone() -> None:
    model = host(2)
    before = run_on_meta(model, (1, 2, 12, 12)).macs, sum(p.numel() for p in model.parameters())
    report = excite.attach(model, "se", input_size=(2, 12, 12))
    after = run_on_meta(model, (1, 2, 12, 12)).macs, sum(p.numel() for p in model.parameters())
    assert report.macs_added == after[0] - before[0] > 0
    assert report.parameters_added == after[1] - before[1] > 0


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_in_the_mode_of_its_host(training: bool) -> None:
    model = host(2).train(training)
    excite.attach(model, "cbam", input_size=(2, 12, 12))
    assert {module.training for module in model.modules()} == {training}


def test_between_stages() -> None:
    model = build("torchvision/resnet18")
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    report = excite.attach(model, "bam")
    assert [s.path for s in report.sites] == ["layer1.1", "layer2.1", "layer3.1"]
    trained_once(model, x)
    with pytest.raises(UsageError, match="between-stages"):
        excite.attach(build("torchvision/resnet18"), "bam", sites="residual")
    fresh = build("torchvision/resnet18")
    excite.attach(fresh, "bam", sites="stage-ends")
    assert "layer4.1.attention.channel" in " ".join(fresh.state_dict())
    excite.detach(fresh)
    assert torch.equal(fresh(x), before)


@pytest.mark.parametrize("method", ["psa", "ma", "sk", "split"])
def test_convolutions_are_replaced_on_request(method: str) -> None:
    model = build("timm/resnet26d")
    x = torch.randn(2, 3, 64, 64)
    before, keys = model(x), list(model.state_dict())
    with pytest.raises(UsageError, match="replace=True"):
        excite.attach(model, method)
    report = excite.attach(model, method, replace=True)
    assert [s.path for s in report.sites][:2] == ["layer1.0.conv2", "layer1.1.conv2"]
    assert set(report.removed) == {f"{s.path}.weight" for s in report.sites}
    assert report.parameters_removed > 0
    trained_once(model, x)
    model.load_state_dict(build("timm/resnet26d").state_dict())
    excite.detach(model)
    assert list(model.state_dict()) == keys
    assert torch.equal(model.eval()(x), before)


def test_options_per_stage() -> None:
    model = build("torchvision/resnet18")
    excite.attach(model, "eca", kernel_size="3,5,5,7")
    sizes = [p.shape[-1] for k, p in model.named_parameters() if k.endswith("bn2.attention.gate.conv.weight")]
    assert sizes == [3, 3, 5, 5, 5, 5, 7, 7]
    late = build("torchvision/resnet18")
    excite.attach(late, "eca", sites="layer2.*.bn1, layer4.1.bn2", kernel_size=[3, 5, 5, 7])
    assert [p.shape[-1] for k, p in late.named_parameters() if "attention" in k] == [5, 5, 7]
    with pytest.raises(UsageError, match="4 stages"):
        excite.attach(build("torchvision/resnet18"), "eca", kernel_size="3,5")


def test_plain_network_with_shared_modules() -> None:
    for dims in (1, 2, 3):
        model = Plain(dims).eval()
        size = (3, *[16] * dims)
        report = excite.attach(model, "se", sites="stage-ends", input_size=size, reduction=4)
        assert [s.path for s in report.sites] == ["conv1", "conv2"]
        assert [s.channels for s in report.sites] == [8, 16]
        trained_once(model, torch.randn(2, *size))


def test_nothing_changes_when_a_method_does_not_fit() -> None:
    model = host(2, width=8)
    keys = list(model.state_dict())
    with pytest.raises(UsageError, match=r"first\.0\.last.*channels"):
        excite.attach(model, "sa", groups=64)
    with pytest.raises(UsageError, match="no option"):
        excite.attach(model, "eca", kernel=3)
    with pytest.raises(UsageError, match="eca"):
        excite.attach(model, "ecaa")
    assert list(model.state_dict()) == keys
    assert not any("attention" in k for k in keys)
