"""Every method against numbers computed from its original implementation, in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import excite
import goldens


class Case(NamedTuple):
    """A golden file, how we build the same module, and (reference, ours) pieces of keys, applied in order."""

    file: str
    method: str
    options: dict[str, Any] = {}  # noqa: RUF012
    names: tuple[tuple[str, str], ...] = ()
    channels: int = 64


MIXER = (
    ("3.0.fn.0.", "depthwise."),
    ("3.0.fn.2.", "depthwise_norm."),
    ("3.1.fn.0.running", "soft_norm.norm.running"),
    ("3.1.fn.0.num", "soft_norm.norm.num"),
    ("3.1.fn.0.weight_readjust", "soft_norm.readjust_weight"),
    ("3.1.fn.0.bias_readjust", "soft_norm.readjust_bias"),
    ("3.1.fn.0.", "soft_norm."),
    ("3.1.fn.1.", "pointwise."),
    ("3.1.fn.3.", "pointwise_norm."),
)
BRANCHES = tuple((f"conv_{i + 1}.", f"branches.{i}.") for i in range(4))
SE = (("se.fc.0.", "gate.reduce."), ("se.fc.2.", "gate.expand."))
FC = (("fc.0.", "gate.reduce."), ("fc.2.", "gate.expand."))
FC12 = (("fc1.", "gate.reduce."), ("fc2.", "gate.expand."))
CBAM = (("mlp.1.", "gate.reduce."), ("mlp.3.", "gate.expand."), ("ChannelGate.", "channel."))
SPATIAL = (("SpatialGate.spatial.bn.", "spatial.norm."), ("SpatialGate.spatial.", "spatial."))
TIMM_CBAM = (
    ("channel.fc1.", "channel.gate.reduce."),
    ("channel.fc2.", "channel.gate.expand."),
    ("spatial.conv.conv.", "spatial.conv."),
    ("spatial.conv.bn.", "spatial.norm."),
)
GATHER = (
    ("gather.conv1", "gather.0"),
    ("gather.norm1", "gather.1"),
    ("gather.conv2", "gather.3"),
    ("gather.norm2", "gather.4"),
    ("mlp.fc1.", "excite.reduce."),
    ("mlp.fc2.", "excite.expand."),
)
BAM = (
    ("channel_att.gate_c.gate_c_fc_0.", "channel.reduce."),
    ("channel_att.gate_c.gate_c_bn_1.", "channel.norm."),
    ("channel_att.gate_c.gate_c_fc_final.", "channel.expand."),
    ("spatial_att.gate_s.gate_s_conv_reduce0.", "spatial.0."),
    ("spatial_att.gate_s.gate_s_bn_reduce0.", "spatial.1."),
    ("spatial_att.gate_s.gate_s_conv_di_0.", "spatial.3."),
    ("spatial_att.gate_s.gate_s_bn_di_0.", "spatial.4."),
    ("spatial_att.gate_s.gate_s_conv_di_1.", "spatial.6."),
    ("spatial_att.gate_s.gate_s_bn_di_1.", "spatial.7."),
    ("spatial_att.gate_s.gate_s_conv_final.", "spatial.9."),
)
GSOP = (
    ("b.conv_for_DR.", "reduce."),
    ("b.bn_for_DR.", "reduce_norm."),
    ("b.row_bn.", "gate.norm."),
    ("b.row_conv_group.", "gate.row."),
    ("b.fc_adapt_channels.", "gate.adapt."),
)
GC_ADD = (
    ("conv_mask.", "mask."),
    ("channel_add_conv.0.", "shift.reduce."),
    ("channel_add_conv.1.", "shift.norm."),
    ("channel_add_conv.3.", "shift.expand."),
)
GC_TIMM = (
    ("conv_attn.", "mask."),
    ("mlp_scale.fc1.", "scale.reduce."),
    ("mlp_scale.norm.", "scale.norm."),
    ("mlp_scale.fc2.", "scale.expand."),
)
SA = (
    ("cweight", "channel_weight"),
    ("cbias", "channel_bias"),
    ("sweight", "spatial_weight"),
    ("sbias", "spatial_bias"),
    ("gn.", "norm."),
)
A2 = (
    ("convA.", "feature."),
    ("convB.", "gather."),
    ("convV.", "distribute."),
    ("conv_reconstruct.", "out."),
)
GCT = (("alpha", "gate.alpha"), ("beta", "gate.beta"), ("gamma", "gate.gamma"))
CONV = (("conv.", "gate.conv."),)

CASES = [
    Case("se__moskomule_r16_nobias", "se", {}, FC),
    Case("se__srmrepo_r16_bias", "se", {"bias": True}, FC),
    Case("se__timm_SEModule_r16", "se", {"bias": True, "divisor": 8}, FC12),
    Case("se_var1__c64", "se_var1"),
    Case("se_var2__c64", "se_var2", {}, (("weight", "gate.weight"),)),
    Case("se_var3__c64_nobias", "se_var3", {}, (("fc.", "gate.fc."),)),
    Case("eca__k3", "eca", {"kernel_size": 3}, CONV),
    Case("eca__k5", "eca", {"kernel_size": 5}, CONV),
    Case("eca_ns__k3", "eca_ns", {"kernel_size": 3}, CONV),
    Case("ceca__timm_CecaModule_c64", "ceca", {}, CONV),
    Case("ese__timm_EffectiveSE", "ese", {}, (("fc.", "gate.fc."),)),
    Case("srm__c64_b8", "srm", {}, (("cfc", "gate.cfc"), ("bn.", "gate.bn."))),
    Case("gct__c64_l2", "gct", {}, GCT),
    Case("fca__low8_14", "fca", {"frequencies": "low8", "size": 14}, FC),
    Case("fca__top16_14", "fca", {"size": 14}, FC),
    Case("fca__top16_7", "fca", {"size": 7}, FC),
    Case("fca__low8_14", "fca", {"frequencies": "low8"}, FC),
    Case("fca__top16_14", "fca", {}, FC),
    Case("fca__top16_7", "fca", {}, FC),
    Case("ge__timm_avg_mlp_e0", "ge", {"mlp": True}, (("mlp.fc1.", "gate.reduce."), ("mlp.fc2.", "gate.expand."))),
    Case("ge__timm_theta_minus_e4", "ge", {"extent": 4}),
    Case("ge__timm_theta_e4", "ge", {"variant": "theta", "extent": 4}, GATHER),
    Case("ge__timm_theta_plus_e4", "ge", {"variant": "theta+", "extent": 4}, GATHER),
    Case("gsop__channel_c512_d32", "gsop", {"reduced": 32}, GSOP, channels=512),
    Case("cbam__c64", "cbam", {}, (*CBAM, *SPATIAL)),
    Case("cbam__c64_channel_only", "cbam", {"spatial": False}, (*CBAM, ("channel.", ""))),
    Case("cbam__timm_CbamModule", "cbam", {"mlp_bias": False, "max_first": False}, TIMM_CBAM),
    Case("bam__c64_b4", "bam", {"combine": "product"}, BAM),
    Case("gc__gcnet_att_add", "gc", {}, GC_ADD),
    Case("gc__timm_default", "gc", {"fusion": "multiply", "reduction": 8, "zero_init": False, "eps": 1e-6}, GC_TIMM),
    Case("sa__c64_g8", "sa", {"groups": 8}, SA),
    Case("a2__c64_m16_n16_paper", "a2", {"features": 16, "maps": 16}, A2),
    Case("psa__c64_s1", "psa", {}, (*BRANCHES, ("se.fc1.", "gate.reduce."), ("se.fc2.", "gate.expand."))),
    Case(
        "ma__c64_s1",
        "ma",
        {},
        (
            *SE,
            *BRANCHES,
            *MIXER,
            *((f"s.{i}.0.", f"s.{i}.conv.") for i in range(4)),
            *((f"s.{i}.2.", f"s.{i}.norm.") for i in range(4)),
        ),
    ),
]


def rename(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in names:
        key = key.replace(theirs, ours, 1)
    return key


def load(module: nn.Module, data: dict[str, Any], names: tuple[tuple[str, str], ...]) -> None:
    """Fill by the reference's names, rename, and load strictly; a shape may differ by axes of size one."""
    own = module.state_dict()
    state = {rename(k, names): v for k, v in goldens.fill_state(data).items()}
    missing = {k for k in own if k not in state and not k.endswith("num_batches_tracked")}
    assert not missing, missing
    assert set(state) <= set(own), set(state) - set(own)
    module.load_state_dict({k: state[k].reshape(own[k].shape) if k in state else own[k] for k in own})


def check(module: nn.Module, data: dict[str, Any], names: tuple[tuple[str, str], ...]) -> None:
    learned = sum(p.numel() for p in module.parameters())
    assert learned == data["param_count"]
    for mode in ("eval", "train"):
        if mode not in data:
            continue
        load(module, data, names)
        module.train(mode == "train")
        module.zero_grad(set_to_none=True)
        x = goldens.make_input(data).requires_grad_()
        out = module(x)
        expected = data[mode]
        goldens.check_output(out, expected)
        loss = out.square().mean()
        assert goldens.close(loss.item(), expected["loss"], expected["loss"], 1e-8)
        loss.backward()
        assert goldens.close(float(x.grad.norm()), expected["grad_input_l2"], expected["grad_input_l2"], 1e-6)
        own = dict(module.named_parameters())
        grads: Callable[[str], torch.Tensor | None] = lambda key: own[rename(key, names)].grad  # noqa: E731, B023
        if expected["grad_l2"]:
            goldens.check_gradients(data, expected["grad_l2"], grads)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.file)
def test_equals_the_original(case: Case) -> None:
    data = goldens.load(f"modules/{case.file}")
    module = excite.create_attention(case.method, case.channels, **case.options).double()
    check(module, data, case.names)


def test_soft_norm_equals_the_original() -> None:
    from excite.methods.emanet import SoftNorm

    names = (
        ("running", "norm.running"),
        ("num_b", "norm.num_b"),
        ("weight_readjust", "readjust_weight"),
        ("bias_readjust", "readjust_bias"),
    )
    check(SoftNorm(2, 16).double(), goldens.load("modules/ma__softban_c16"), names)
