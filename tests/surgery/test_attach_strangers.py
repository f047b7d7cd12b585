"""Hosts that change after attach or before it, odd networks, and what the report and the errors say of them."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import zoo_shapes as shapes
from timm.utils.model import reparameterize_model
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

import excite
from excite import UsageError
from excite.surgery.carrier import carriers

PICTURE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def live(model: nn.Module) -> nn.Module:
    """Give norms other statistics than 0 and 1."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    return model.eval()


def plain_convs() -> nn.Module:
    return live(shapes.PreActivation())


@pytest.mark.parametrize("parametrise", [weight_norm, spectral_norm])
def test_parametrised_after_attach(parametrise: type) -> None:
    model = plain_convs()
    excite.attach(model, "eca")
    host = model.blocks[0].conv2
    parametrise(host)
    model(PICTURE)
    expected = model.eval()(PICTURE)
    twin = copy.deepcopy(model)
    excite.detach(model)
    assert "parametrizations" in dict(host.named_children())
    assert list(host._modules) == ["parametrizations"]
    plain = model(PICTURE)
    assert not torch.equal(plain, expected)
    remove_parametrizations(host, "weight")
    torch.testing.assert_close(model(PICTURE), plain)
    assert torch.equal(twin(PICTURE), expected), "the copy is another network"
    excite.detach(twin)
    assert torch.equal(twin(PICTURE), plain)


def test_parametrised_before_attach() -> None:
    model = plain_convs()
    weight_norm(model.blocks[0].conv2)
    before = model(PICTURE)
    excite.attach(model, "eca")
    expected = model(PICTURE)
    remove_parametrizations(model.blocks[0].conv2, "weight")
    torch.testing.assert_close(model(PICTURE), expected)
    assert len(list(carriers(model))) == 2
    excite.detach(model)
    torch.testing.assert_close(model(PICTURE), before)
    assert type(model.blocks[0].conv2) is nn.Conv2d


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("repvgg_a0", "all-blocks"),
        pytest.param("mobileone_s0", "all-blocks", marks=pytest.mark.slow),
        pytest.param("repvit_m0_9", "residual", marks=pytest.mark.slow),
        pytest.param("fastvit_t8", "residual", marks=pytest.mark.slow),
        pytest.param("repghostnet_050", "residual", marks=pytest.mark.slow),
    ],
)
def test_reparameterised_networks_keep_their_attention(name: str, sites: str) -> None:
    model = live(timm.create_model(name, num_classes=4))
    excite.attach(model, "eca", sites=sites)
    x = torch.randn(1, 3, 64, 64)
    expected, count = model(x), sum("attention" in key for key in model.state_dict())
    folded = reparameterize_model(model)
    assert sum("attention" in key for key in folded.state_dict()) == count > 0
    torch.testing.assert_close(folded(x), expected, rtol=1e-3, atol=1e-3)
    assert len(list(carriers(folded))) == len(list(carriers(model)))
    excite.detach(folded)
    assert not any("attention" in key for key in folded.state_dict())


def test_what_folds_away_is_refused() -> None:
    model = timm.create_model("repvgg_a0", num_classes=4)
    with pytest.raises(UsageError, match=r"'stages\.0\.1\.conv_kxk\.bn' lies in .*name 'stages\.0\.1"):
        excite.attach(model, "eca", sites="stages.0.1.conv_kxk.bn")


def test_a_forward_that_is_set_later_is_the_hosts() -> None:
    model = live(shapes.Encoder())
    excite.attach(model, "eca", sites="block1.conv2")
    conv = model.block1.conv2
    expected = model(PICTURE)
    host = nn.Conv2d.forward
    conv.forward = lambda x: 2 * host(conv, x)
    assert not torch.allclose(model(PICTURE), expected)
    conv.forward = lambda x: host(conv, x)
    assert torch.equal(model(PICTURE), expected)
    excite.detach(model)
    assert "forward" in conv.__dict__


def wrap(module: nn.Module, log: list[str]) -> None:
    """Put a wrapper round the forward that a module has now, as tools that move or watch modules do."""
    inner = module.forward

    def outer(*args: Any, **kwargs: Any) -> Any:
        log.append("in")
        return inner(*args, **kwargs)

    module.forward = outer


@pytest.mark.parametrize("site", ["block1.conv2", "block1.bn2"])
def test_a_wrapper_of_a_carriers_forward_runs_once_and_outlives_the_attention(site: str) -> None:
    model = live(shapes.Encoder())
    bare = model(PICTURE)
    excite.attach(model, "eca", sites=site)
    expected, log = model(PICTURE), []
    module = model.get_submodule(site)
    wrap(module, log)
    torch.testing.assert_close(model(PICTURE), expected)  # norm and attention run apart then
    assert log == ["in"]
    excite.detach(model)
    assert torch.equal(model(PICTURE), bare)
    assert log == ["in"] * 2


def test_siamese_networks_are_told_their_shared_part() -> None:
    with pytest.raises(UsageError, match=r"'encoder' runs 2 times.*excite\.attach\(model\.encoder") as caught:
        excite.attach(shapes.Siamese(), "eca", example=(PICTURE, PICTURE))
    assert "features" not in str(caught.value)
    model = live(shapes.Siamese())
    before = model(PICTURE, PICTURE.flip(0))
    report = excite.attach(model.encoder, "eca")
    assert [s.path for s in report.sites] == ["block1.bn2", "block2.bn2"]
    assert not torch.equal(model(PICTURE, PICTURE.flip(0)), before)
    excite.detach(model)
    assert torch.equal(model(PICTURE, PICTURE.flip(0)), before)


@pytest.mark.parametrize(
    ("network", "note"),
    [
        (shapes.TrainOnly, "aux did not run"),
        (shapes.DataDependent, "bright did not run"),
        (shapes.WeightShared, r"runs several times .*: block \(3 times\)"),
        (shapes.UnknownAttention, "weigh weighs channels .*replace='Recalibration'"),
    ],
)
def test_the_report_says_what_carries_nothing(network: type[nn.Module], note: str) -> None:
    report = excite.attach(network(), "eca", input_size=(3, 32, 32))
    assert len(report.notes) == 1
    assert excite.attach(shapes.Encoder(), "eca").notes == ()
    assert re.search(note, str(report))


def test_an_optimizer_built_before_is_noted() -> None:
    model = shapes.Encoder()
    optimizer = torch.optim.AdamW(model.parameters())
    (note,) = excite.attach(model, "eca").notes
    assert "AdamW" in note
    assert "build it after attach" in note
    del optimizer


@pytest.mark.parametrize("replace", ["Recalibration", shapes.Recalibration, [shapes.Recalibration, "Other"]])
def test_own_attention_is_replaced_by_name(replace: object) -> None:
    model = live(shapes.UnknownAttention())
    before = model(PICTURE)
    report = excite.attach(model, "eca", replace=replace)
    assert [(s.path, s.kind) for s in report.sites] == [("weigh", "attention")]
    assert report.notes == ()
    excite.detach(model)
    assert torch.equal(model(PICTURE), before)


def test_wrong_replace() -> None:
    for wrong in ([], [3]):
        with pytest.raises(UsageError, match="replace takes True, a class"):
            excite.attach(shapes.UnknownAttention(), "eca", replace=wrong)
    with pytest.raises(UsageError, match="no attention to replace"):
        excite.attach(shapes.Encoder(), "eca", replace="Missing")


EXAMPLES = {
    "tuple": (shapes.TwoInputs, (PICTURE, torch.zeros(2, 3))),
    "keywords": (shapes.TwoInputs, {"image": PICTURE, "meta": torch.zeros(2, 3)}),
    "a dict as the argument": (shapes.DictInput, ({"image": PICTURE, "meta": torch.zeros(2, 3)},)),
    "a tensor": (shapes.Encoder, PICTURE),
    "data that decide": (shapes.DataDependent, PICTURE + 2),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_examples(case: str) -> None:
    network, example = EXAMPLES[case]
    model = network()
    found = excite.sites(model, example=example)
    assert len([s for s in found if "residual" in s.presets and s.place != "instead"]) == 2 + (
        case == "data that decide"
    )
    report = excite.attach(model, "eca", example=example)
    assert report.input_size == (3, 32, 32)
    assert not any(p.is_meta for p in model.parameters())


def test_wrong_examples() -> None:
    with pytest.raises(UsageError, match="say the same twice"):
        excite.sites(shapes.Encoder(), (3, 32, 32), example=PICTURE)
    with pytest.raises(UsageError, match="got int"):
        excite.sites(shapes.Encoder(), example=3)
    with pytest.raises(UsageError, match="holds no tensor"):
        excite.sites(shapes.Encoder(), example=(torch.zeros(3),))
    with pytest.raises(excite.ExciteError, match="failed on the example"):
        excite.sites(shapes.Encoder(), example=(PICTURE, PICTURE))
    with pytest.raises(excite.ExciteError, match=r"example=x"):
        excite.sites(shapes.TwoInputs())


def test_what_a_pass_leaves_on_the_network_is_taken_back() -> None:
    class Caching(shapes.Encoder):
        grid: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.grid is None:
                self.grid = torch.ones_like(x)
            return super().forward(x * self.grid)

    model = Caching()
    excite.attach(model, "eca", input_size=(3, 32, 32))
    assert model.grid is None
    model(PICTURE)


def test_scripting_lazy_and_quantised_networks() -> None:
    model = shapes.Encoder().eval()
    excite.attach(model, "eca")
    with pytest.raises(UsageError, match=r"TorchScript cannot script.*torch\.export"):
        torch.jit.script(model)
    assert torch.allclose(torch.jit.trace(model, PICTURE)(PICTURE), model(PICTURE))
    with pytest.raises(UsageError, match=r"'0\.weight' has no shape yet"):
        excite.attach(nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU()), "eca")
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(UsageError, match="run the network once"):
        excite.sites(small)
    quantised = nn.Sequential(nn.Conv2d(3, 4, 3), torch.ao.nn.quantized.Conv2d(4, 4, 3))
    with pytest.raises(UsageError, match="'1' is quantised"):
        excite.attach(quantised, "eca")


class Shared(nn.Module):
    """Residual blocks `norm(conv(x)) + x` with norms of one's own choice, shared or not."""

    def __init__(self, norms: list[nn.Module], written_out: bool = False) -> None:
        super().__init__()
        self.stem, self.head, self.written_out = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4), written_out
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in norms)
        self.norms = nn.ModuleList(norms)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(conv(x))
            if self.written_out:
                off = y - y.mean(1, keepdim=True)
                y = off / (off.square().mean(1, keepdim=True) + 1e-5).sqrt()
            x = torch.relu(y + x)
        return self.head(x.mean((2, 3)))


def test_a_norm_that_runs_twice_carries_nothing_and_neither_does_what_is_before_it() -> None:
    shared = nn.BatchNorm2d(8)
    report = excite.attach(Shared([shared, shared, nn.BatchNorm2d(8)]), "eca", input_size=(3, 8, 8))
    assert [s.path for s in report.sites] == ["norms.2"]
    assert report.notes == ("runs several times in a pass, so nothing was put there: norms.0 (2 times)",)
    with pytest.raises(UsageError, match=r"'norms\.0' runs 2 times: give every call a module of its own"):
        excite.attach(Shared([shared, shared]), "eca", input_size=(3, 8, 8))
    with pytest.raises(UsageError, match="no sites 'residual'"):
        excite.attach(Shared([nn.Identity()], written_out=True), "eca", input_size=(3, 8, 8))


@pytest.mark.parametrize(
    ("norm", "method", "told"),
    [
        (lambda: nn.InstanceNorm2d(8, affine=True), "eca", True),
        (lambda: nn.InstanceNorm2d(8), "srm", True),
        (lambda: nn.GroupNorm(8, 8), "se", True),
        (lambda: nn.Sequential(nn.InstanceNorm2d(8), nn.Dropout2d(0.1)), "emca_eca", True),
        (lambda: nn.InstanceNorm2d(8), "cbam", False),
        (lambda: nn.GroupNorm(4, 8), "eca", False),
        (lambda: nn.Sequential(nn.InstanceNorm2d(8), nn.ReLU()), "eca", False),
    ],
)
def test_behind_an_instance_norm_the_report_says_what_the_squeeze_sees(
    norm: Callable[[], nn.Module], method: str, told: bool
) -> None:
    report = excite.attach(Shared([norm(), norm()]), method, input_size=(3, 8, 8))
    assert report.sites
    assert any("sees nothing of the image at norms." in note for note in report.notes) == told
