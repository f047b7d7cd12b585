"""The recorder sees what the attention multiplies by, and never stays on the model."""

from typing import Any

import pytest
import torch
from torch import nn

from excite.explain import GateRecorder, find_sites
from excite.explain.gates import recorded
from excite.explain.scales import collect_scales
from excite.inspect.attention import channel_weights
from excite.models import create_model
from excite.registry import create_attention

SMALL = {"num_classes": 10}


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def images(n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["se", "eca", "srm", "gct", "se_gc"])
def test_recorded_weights_are_those_of_the_module(method: str) -> None:
    model = create_model(f"{method}_resnet20", **SMALL).eval()
    site = find_sites(model)[4]
    seen: list[torch.Tensor] = []
    handle = site.module.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach().clone()))
    with torch.no_grad():
        found = recorded(model, lambda: model(images()))
    handle.remove()
    with torch.no_grad():
        expected = site.module.weights(seen[0])  # type: ignore[operator]
    torch.testing.assert_close(found[site.name], expected, rtol=1e-4, atol=1e-5)
    assert len(found) == 9


def test_emca_released_form_gives_the_joined_factor() -> None:
    model = create_model("emca_eca_resnet20", form="released", **SMALL).eval()
    joined = [s for s in find_sites(model) if hasattr(s.module, "join")]
    assert joined
    factors: dict[str, torch.Tensor] = {}
    for site in joined:
        real = site.module.weights_of

        def spy(descriptor, context, real=real, name=site.name):
            factors[name] = real(descriptor, context)
            return factors[name]

        site.module.weights_of = spy  # type: ignore[assignment]
    with torch.no_grad():
        found = recorded(model, lambda: model(images()))
    for name, expected in factors.items():
        torch.testing.assert_close(found[name], expected)


def test_emca_paper_form_has_one_site_per_stage() -> None:
    model = create_model("emca_eca_resnet20", **SMALL).eval()
    with torch.no_grad():
        found = recorded(model, lambda: model(images()))
    assert [s.stage for s in find_sites(model)] == [1, 2, 3]
    assert [w.shape[1] for w in found.values()] == [16, 32, 64]


def test_pyramid_shares_sum_to_one_over_the_branches() -> None:
    model = create_model("psa_resnet50", **SMALL).eval()
    with torch.no_grad():
        found = recorded(model, lambda: model(images(1)))
    weights = next(iter(found.values()))
    shares = weights.reshape(1, 4, -1).sum(1)
    torch.testing.assert_close(shares, torch.ones_like(shares))


def test_weights_of_a_pyramid_are_in_the_order_of_its_output() -> None:
    attention: Any = create_attention("psa", 16).eval()
    x = images(2, 9).repeat(1, 6, 1, 1)[:, :16]
    with torch.no_grad():
        weights = channel_weights(nn.Sequential(attention), x)["0"]
        maps = torch.cat([branch(x) for branch in attention.branches][::-1], dim=1)
        torch.testing.assert_close(attention(x), maps * weights[:, :, None, None])


def test_hooks_do_not_stay() -> None:
    model = create_model("eca_resnet20", **SMALL)
    before = hooks(model)
    with GateRecorder(model) as recorder:
        assert hooks(model) > before
        model(images())
    assert hooks(model) == before
    assert len(recorder.weights) == 9


def test_hooks_do_not_stay_after_an_exception() -> None:
    model = create_model("se_resnet20", **SMALL)
    before = hooks(model)
    with pytest.raises(RuntimeError), GateRecorder(model):
        model(torch.randn(2, 5, 32, 32))
    assert hooks(model) == before


def test_output_is_unchanged_while_recording() -> None:
    model = create_model("eca_resnet20", **SMALL).eval()
    with torch.no_grad():
        expected = model(images())
        with GateRecorder(model):
            torch.testing.assert_close(model(images()), expected)  # whoever watches a gate sees it run by itself


def test_timm_and_torchvision_se_are_found() -> None:
    import timm
    import torchvision

    host = timm.create_model("seresnext26ts", num_classes=4).eval()
    with torch.no_grad():
        found = recorded(host, lambda: host(images(1, 64)))
    assert len(found) == len(find_sites(host)) == 8
    mobile = torchvision.models.mobilenet_v3_small(weights=None, num_classes=4).eval()
    with torch.no_grad():
        assert len(recorded(mobile, lambda: mobile(images(1, 64)))) == 9


def test_attached_attention_is_found() -> None:
    model = create_model("timm/resnet10t", num_classes=4, attach="eca").eval()
    with torch.no_grad():
        found = recorded(model, lambda: model(images(1, 64)))
    assert len(found) == 4
    assert {s.stage for s in find_sites(model)} == {1, 2, 3, 4}


def test_plain_network_has_no_sites() -> None:
    assert find_sites(create_model("resnet20", **SMALL)) == []


def test_means_by_class_and_their_total_agree() -> None:
    model = create_model("se_resnet20", **SMALL)
    model.train()
    x, y = images(6), torch.tensor([0, 0, 1, 1, 1, 3])
    scales = collect_scales(model, [(x[:4], y[:4]), (x[4:], y[4:])], 10)
    assert model.training
    with torch.no_grad():
        model.eval()
        weights = recorded(model, lambda: model(x))
    for found in scales:
        w = weights[found.name].double()
        assert found.images == 6
        torch.testing.assert_close(found.mean, w.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.std, w.std(0, correction=0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.per_class[1], w[2:5].mean(0), rtol=1e-5, atol=1e-6)
        assert bool(found.per_class[2].isnan().all())
        assert int(found.histogram.sum()) == w.numel()


def test_the_histogram_reaches_from_zero_to_two() -> None:
    model = create_model("gct_resnet20", **SMALL).eval()
    for site in find_sites(model):
        nn.init.normal_(site.module.gate.beta, std=0.7)
    x = images(3)
    with torch.no_grad():
        weights = recorded(model, lambda: model(x))
    for found in collect_scales(model, [(x, None)]):
        w = weights[found.name]
        assert w.min() < 0.8
        assert w.max() > 1.2
        assert torch.equal(found.histogram, torch.histc(w.double(), 100, 0, 2).long())


def test_blocks_and_stages_are_numbered_from_one() -> None:
    sites = find_sites(create_model("se_resnet20", **SMALL))
    assert [(s.stage, s.block) for s in sites] == [(s, b) for s in (1, 2, 3) for b in (1, 2, 3)]
