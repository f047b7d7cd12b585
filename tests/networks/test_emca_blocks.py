"""The released EMCA block against the original, and the pieces it is made of."""

import pytest
import torch

import excite
import goldens
from excite.backbones.blocks import BasicBlock
from excite.errors import UsageError
from excite.methods.emca import Emca, ScaleFusion, align, emca_eca, emca_se
from excite.squeezes import Mean

RENAMED = {
    "b.residual.0.": "conv1.",
    "b.residual.1.": "bn1.",
    "b.residual.3.": "conv2.",
    "b.residual.4.": "bn2.",
    "b.ECA_excitation_local.0.": "attention.gate.conv.",
    "b.ECA_excitation_global_stage.0.": "attention.across.conv.",
    "b.stage_in_fusion.0.": "attention.fusion.",
    "b.out_fusion.0.weight": "attention.join",
}


def rename(key: str) -> str:
    for theirs, ours in RENAMED.items():
        if key.startswith(theirs):
            return ours + key[len(theirs) :]
    return key


@pytest.mark.parametrize(
    ("name", "scales", "stage"),
    [("emca__basic_block1_stage3", 0, 3), ("emca__basic_block2_stage1", 2, 1), ("emca__basic_block2_stage3", 4, 3)],
)
def test_released_block_equals_the_original(name: str, scales: int, stage: int) -> None:
    data = goldens.load(f"modules/{name}")
    state = {rename(k): v for k, v in goldens.fill_state(data).items()}
    attention = emca_eca(64, form="released", scales=scales, kernel_size=3)
    block = BasicBlock(64, 64, 1, None, attention).double()
    block.connect(tuple(range(stage)) if scales else (), Mean(), "branch")
    own = block.state_dict()
    kept = {k: state[k].reshape(v.shape) for k, v in own.items()}

    def run(x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3))
        context = [((i + 1) * pooled.roll(i + 1, dims=1)).unsqueeze(-1) for i in range(stage if scales else 0)]
        out, descriptor = block(x, context)
        assert descriptor.shape == (4, 64, 1)
        return out

    block.load_state_dict(kept)
    with torch.no_grad():
        goldens.check_output(block.eval() and run(goldens.make_input(data)), data["eval"])
    block.load_state_dict(kept)
    x = goldens.make_input(data).requires_grad_()
    out = block.train() and run(x)
    goldens.check_output(out, data["train"])
    out.square().mean().backward()
    gradients = {k: p.grad for k, p in block.named_parameters()}
    record = data["train"]
    goldens.check_gradients(data, record["grad_l2"], lambda key: gradients.get(rename(key)))
    assert x.grad is not None
    assert abs(float(x.grad.norm()) - record["grad_input_l2"]) <= 1e-6 * record["grad_input_l2"]


def test_alignment_repeats_the_whole_vector() -> None:
    s = torch.arange(3.0).view(1, 3, 1)
    assert align(s, 6).flatten().tolist() == [0, 1, 2, 0, 1, 2]
    assert align(s, 4).flatten().tolist() == [0, 1, 2, 0]
    assert align(s, 2).flatten().tolist() == [0, 1]
    assert align(s, 3) is s


def test_fusion_is_one_weight_per_scale_then_relu() -> None:
    fusion = ScaleFusion(2)
    assert fusion.weight.tolist() == [0.5, 0.5]
    fusion.weight.data = torch.tensor([2.0, -1.0])
    a, b = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [1.0]]])
    assert fusion([a, b]).flatten().tolist() == [0.0, 3.0]


def test_without_scales_it_is_the_plain_method() -> None:
    torch.manual_seed(0)
    module = emca_se(64)
    x = torch.randn(2, 64, 5, 5)
    expected = x * module.gate(x.mean((2, 3), keepdim=True)[..., 0])[:, :, None, None]
    assert isinstance(module, Emca)
    assert torch.allclose(module(x), expected)
    assert not [k for k in module.state_dict() if "fusion" in k]


def test_context_of_the_wrong_length() -> None:
    module = emca_se(64, scales=3)
    with pytest.raises(UsageError, match="fuses 2 earlier descriptors, got 0"):
        module(torch.randn(2, 64, 5, 5))


def test_context_reaches_the_weights() -> None:
    torch.manual_seed(0)
    module = emca_eca(64, scales=2)
    x, earlier = torch.rand(2, 64, 5, 5), torch.rand(2, 32, 1)
    assert not torch.allclose(module(x, [earlier]), module(x, [2 * earlier]))
    assert torch.isfinite(module(x.bfloat16(), [earlier]).float()).all()


@pytest.mark.parametrize(("options", "says"), [({"form": "papre"}, "papre"), ({"scales": -1}, "at least 0")])
def test_bad_options(options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        excite.create_attention("emca_eca", 64, **options)
