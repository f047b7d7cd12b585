"""The released EMCA in every wiring that its flags allow, against numbers of the original code.

The numbers were computed in float64 with eslambakr/EMCA@76bae427ea, Code/eca_resnet_multi_scale.py (eca_resnet34, five
classes), with the flags named in each case; weights by the golden files' rule (those of the fusions without their
sign, so that no rectifier is dead), input `RandomState(0)`, [1 3 64 64].
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import references as ref
import torch

import excite
import goldens
from excite.errors import UsageError
from excite.methods.emca import LocalGlobalEmca


def prior(stage: int, depths: Sequence[int]) -> int:
    return 1 + (depths[stage - 2] if stage > 1 else 1)


# flags of the original; lengths of the stage fusions; what is read off; logits
CASES: dict[str, tuple[Callable[[int, Sequence[int]], int] | None, dict[str, Any], list[float]]] = {
    "block_att, stage_att, stage_att_all_last_blocks": (
        lambda s, b: s + 1,
        {"stages": "all", "blocks": 1},
        [-5120.437767997848, 5405.050756417887, 8497.349601947677, -10342.867524335597, 10528.706231336564],
    ),
    "block_att, stage_att, stage_att_last_block": (
        lambda s, b: 2,
        {"stages": 1, "blocks": 1},
        [-5236.208578360685, 5927.872492056023, 8466.800252322417, -10612.146417446207, 10509.199553354769],
    ),
    "block_att, stage_att": (
        prior,
        {"stages": 1, "blocks": "all"},
        [-5716.020780532395, 5825.079555669436, 8607.289610530159, -10304.322696883344, 10920.724372461142],
    ),
    "block_att": (
        None,
        {"stages": 0, "blocks": 0},
        [-4403.002777885899, 4458.813671772127, 6525.483968962166, -8146.156241006312, 7261.937923734764],
    ),
}


def state_of(fusion: Callable[[int, Sequence[int]], int] | None) -> ref.State:
    across = fusion is not None
    shapes = ref.emca(34, fusion or prior, classes=5, across=across, inside=True)
    keys = set(shapes)
    state = {}
    for key, value in shapes.items():
        numbers = goldens.fill(key, tuple(value.shape), keys)
        state[key] = torch.as_tensor(np.asarray(np.abs(numbers) if "_fusion" in key else numbers))
    return state


@pytest.mark.parametrize("case", CASES)
def test_the_wirings_equal_the_original(case: str) -> None:
    fusion, plan, logits = CASES[case]
    state = state_of(fusion)
    model, report = excite.import_checkpoint(state)
    assert report.model == "emca_eca_resnet34"
    assert {"form": "released", "same_stage": True, **plan}.items() <= report.options.items()
    assert set(report.loaded.values()) | set(report.ignored) == set(state)
    width = 2 if fusion is None else 3
    assert model.layer1[1].attention.join.shape == (width,)
    x = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, 64, 64)))
    with torch.inference_mode():
        out = model(x)[0].tolist()
    assert out == pytest.approx(logits, rel=1e-9)


def test_the_gate_of_se() -> None:
    with torch.device("meta"):
        _, report = excite.import_checkpoint(ref.emca(18, lambda s, b: s + 1, "se", inside=True))
    assert report.model == "emca_se_resnet18"
    assert report.options["same_stage"] is True


def test_what_blocks_of_a_stage_read() -> None:
    options = {"form": "released", "same_stage": True, "blocks_per_stage": "2,3,1,2"}
    model = excite.create_model("emca_eca_resnet18", num_classes=3, **options)
    blocks = model.blocks()
    assert [len(block.sources) for block in blocks] == [0, 2, 0, 3, 4, 0, 0, 5]
    assert [getattr(block.attention, "within", None) for block in blocks] == [0, 2, 0, 2, 3, 0, 0, 2]
    model.train()(torch.randn(2, 3, 64, 64)).mean().backward()
    plain = excite.create_model("emca_eca_resnet18", form="released", blocks_per_stage="2,3,1,2")
    assert not any("inside" in key for key in plain.state_dict())


def test_one_module_by_its_formula() -> None:
    torch.manual_seed(0)
    module = excite.create_attention("emca_eca", 8, form="released", scales=2, within=3)
    assert isinstance(module, LocalGlobalEmca)
    earlier, first, second = (torch.rand(2, c, 1) for c in (4, 8, 8))
    x = torch.rand(2, 8, 5, 5)
    own = x.mean((2, 3))[..., None]
    stage = torch.relu(sum(w * s for w, s in zip(module.fusion.weight, [earlier.repeat(1, 2, 1), own], strict=True)))
    same = torch.relu(sum(w * s for w, s in zip(module.inside_fusion.weight, [first, second, own], strict=True)))
    a, b, c = module.join
    s = torch.sigmoid(a * module.gate(own) + b * module.across(stage) + c * module.inside(same))
    expected = x * (1 + s[..., None, None])
    assert torch.allclose(module(x, [earlier, first, second]), expected, atol=1e-6)
    with pytest.raises(UsageError, match="2 blocks of its own stage, got 1"):
        module(x, [earlier, first])


def test_the_papers_form_has_no_blocks_of_its_stage() -> None:
    with pytest.raises(UsageError, match="same_stage belongs to form='released'"):
        excite.create_model("emca_eca_resnet18", same_stage=True)
    with pytest.raises(UsageError, match="belongs to form='released'"):
        excite.create_attention("emca_eca", 8, within=2)
    with pytest.raises(UsageError, match="true or false"):
        excite.create_model("emca_eca_resnet18", form="released", same_stage="some")
