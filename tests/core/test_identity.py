"""Attention that starts as the identity: on networks, for every method that can, and what it learns from there."""

import copy

import pytest
import torch

import excite
from excite.errors import UsageError
from excite.methods.identity import BlendedGate
from excite.registry import METHODS, get_method

NETWORKS = [
    "timm/resnet10t",
    "timm/mobilenetv3_small_050",
    "timm/regnetx_002",
    "timm/convnext_atto",
    "timm/efficientnet_lite0",
    "timm/resnext26ts",
]
ABLE = [name for name in METHODS if name != "none" and get_method(name).role in ("residual", "between-stages")]


def lively(network: str) -> torch.nn.Module:
    """Build a network whose branches all count, as a trained one's do (fresh ones often start at zero)."""
    torch.manual_seed(0)
    model = excite.create_model(network, num_classes=10).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and name.endswith(("weight", "gamma")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_computes_what_it_did_before(network: str) -> None:
    model = lively(network)
    method = ["eca", "se", "cbam", "srm", "gct", "emca_eca"][NETWORKS.index(network)]
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        before = model(images)
        changed = copy.deepcopy(model)
        report = excite.attach(changed, method, init="identity")
        after = changed.eval()(images)
    assert report.sites
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    if get_method(method).identity_at_init:
        return
    excite.attach(model, method)
    with torch.no_grad():
        assert float((model.eval()(images) - before).abs().max()) > 1e-4 * float(before.abs().max())


@pytest.mark.parametrize("name", ABLE)
def test_every_method_returns_its_input_and_then_learns(name: str) -> None:
    torch.manual_seed(0)
    module = excite.create_attention(name, 64, init="identity").train()
    x = torch.randn(4, 64, 8, 8)
    torch.testing.assert_close(module(x), x, rtol=0, atol=0)
    if hasattr(module, "weights"):
        torch.testing.assert_close(module.weights(x), torch.ones(4, 64), rtol=0, atol=0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    target = torch.randn(4, 64, 8, 8)
    moved: set[str] = set()
    start = {key: value.clone() for key, value in module.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        ((module(x) - target) ** 2).mean().backward()
        optimizer.step()
        moved |= {key for key, value in module.named_parameters() if not torch.equal(value, start[key])}
    blends = {key for key in start if key.endswith("blend")}
    assert blends <= moved
    assert len(moved) > len(blends) or len(start) == len(blends), "beside the blend nothing learned"


@pytest.mark.parametrize("name", [n for n in METHODS if get_method(n).role == "conv"])
def test_what_replaces_a_convolution_has_no_such_start(name: str) -> None:
    with pytest.raises(UsageError, match="takes the place of a convolution"):
        excite.create_attention(name, 64, out_channels=64, init="identity")


def test_words_and_the_released_form() -> None:
    with pytest.raises(UsageError, match=r"init='zero'.*'paper' or 'identity'"):
        excite.create_attention("se", 64, init="zero")
    with pytest.raises(UsageError, match="released form"):
        excite.create_attention("emca_eca", 64, form="released", scales=2, init="identity")


def test_networks_of_ours_take_it_and_stay_fused() -> None:
    from excite import ops

    torch.manual_seed(0)
    model = excite.create_model("eca_resnet20", num_classes=10, init="identity").eval()
    gate = model.layer1[0].attention.gate
    assert isinstance(gate, BlendedGate)
    plain = excite.create_model("resnet20", num_classes=10)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "attention" not in k})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), ops.use("reference"):
        torch.testing.assert_close(model(images), plain.eval()(images), rtol=0, atol=1e-6)
    block = model.layer1[0]
    assert ops.why_not(torch.randn(2, 16, 32, 32), block.bn2, block.attention, None) is None


@pytest.mark.parametrize("name", ["eca", "srm", "cbam", "ge", "simam"])
def test_the_one_number_learns_gently(name: str) -> None:
    """The output is linear in it, so its slope is a difference; it learns from a tenth of that."""
    torch.manual_seed(0)
    module = excite.create_attention(name, 8, init="identity").double().eval()
    x, direction = torch.randn(2, 8, 5, 5).double(), torch.randn(2, 8, 5, 5).double()
    (blend,) = [value for key, value in module.named_parameters() if key.endswith("blend")]
    (module(x) * direction).sum().backward()
    with torch.no_grad():
        at_zero = (module(x) * direction).sum()
        blend.fill_(1)
        slope = (module(x) * direction).sum() - at_zero
    assert blend.grad is not None
    assert torch.allclose(blend.grad, 0.1 * slope, rtol=1e-9)
