"""EMCA on foreign networks equals our own EMCA networks, keys apart."""

import pytest
import torch
from attach_hosts import Residual, Vgg, build, enliven
from torch import nn

import excite
from excite import ExciteError, UsageError


def host_key(key: str, reference: dict[str, torch.Tensor]) -> str:
    """Name in our own EMCA network of a key of the attached host."""
    if ".emca." not in key:
        return key
    block = ".".join(key.split(".")[:2])
    return f"{block}.attention.{key.split('.emca.')[1]}"


@pytest.mark.parametrize(
    "options",
    [{}, {"where": "block"}, {"stages": "all", "blocks": 1}, {"stages": 0, "blocks": 0}, {"form": "released"}],
    ids=str,
)
@pytest.mark.parametrize("gate", ["eca", pytest.param("srm", marks=pytest.mark.slow)])
def test_equals_our_network(gate: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    reference = enliven(excite.create_model(f"emca_{gate}_resnet18", num_classes=10, **options)).eval()
    model = excite.create_model("torchvision/resnet18", num_classes=10).eval()
    keys = list(model.state_dict())
    report = excite.attach(model, f"emca_{gate}", **options)
    assert [k for k in model.state_dict() if ".emca." not in k] == keys, "host keys are unchanged"
    state = reference.state_dict()
    model.load_state_dict({k: state[host_key(k, state)] for k in model.state_dict()})
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-5, atol=1e-5)
    own = sum(p.numel() for p in reference.parameters()) - sum(v.numel() for v in excite.detach(model).parameters())
    assert report.parameters_added == own


@pytest.mark.parametrize(
    "name", ["timm/convnext_atto", "timm/regnety_002", "torchvision/mobilenet_v2", "torchvision/shufflenet_v2_x0_5"]
)
def test_other_families(name: str) -> None:
    model = build(name)
    x = torch.randn(2, 3, 64, 64)
    before, state = model(x), model.state_dict()
    report = excite.attach(model, "emca_se")
    assert report.parameters_added > 0
    assert model.load_state_dict(state).missing_keys == []
    model.train()
    model(x).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    excite.detach(model)
    model.load_state_dict(state)
    fresh = build(name)
    assert type(model) is type(fresh)
    assert torch.equal(fresh(x), before)


def test_train_and_eval_mode_both_survive_tracing() -> None:
    class Dropping(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = super().forward(x)
            return nn.functional.dropout(x, 0.5, self.training)

    model = Dropping().eval()
    excite.attach(model, "emca_eca", input_size=(2, 16, 16))
    x = torch.randn(4, 2, 16, 16)
    assert torch.equal(model(x), model(x))
    assert (model.train()(x) == 0).any()


def test_units_of_a_network_without_branches() -> None:
    model = enliven(Vgg()).eval()
    report = excite.attach(model, "emca_eca")
    assert [s.path for s in report.sites] == ["features.2", "features.6", "features.10", "features.17"]
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_limits_are_said() -> None:
    class Data(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    model = Data().eval()
    keys = list(model.state_dict())
    with pytest.raises(ExciteError, match=r"torch.fx cannot follow Data.*graph"):
        excite.attach(model, "emca_eca", input_size=(2, 16, 16))
    assert list(model.state_dict()) == keys
    with pytest.raises(UsageError, match="leave replace out"):
        excite.attach(Residual(), "emca_eca", replace=True, input_size=(2, 16, 16))
    with pytest.raises(UsageError, match="did you mean 'stages'"):
        excite.attach(Residual(), "emca_eca", stage=1, input_size=(2, 16, 16))
    with pytest.raises(UsageError, match="at least two blocks"):
        excite.attach(Residual(), "emca_eca", sites=["first.0"], input_size=(2, 16, 16))


@pytest.mark.parametrize("name", ["resnet20", "eca_resnet20"])
def test_our_own_networks_are_built_with_it(name: str) -> None:
    model = excite.create_model(name, num_classes=3, width=8)
    with pytest.raises(UsageError, match=r"excite.create_model\('emca_eca_resnet20', ...\)"):
        excite.attach(model, "emca_eca", input_size=(3, 32, 32))
