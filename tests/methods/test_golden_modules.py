"""Every method against numbers computed from its original implementation, in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import excite
import goldens


class Case(NamedTuple):
    """A golden file, how we build the same module, and (reference, ours) pieces of keys, applied in order.

    parts: reference keys that are one of several equal parts of ours: (ours, which, of how many). before: what the
    original does to its input first.
    """

    file: str
    method: str
    options: dict[str, Any] = {}  # noqa: RUF012
    names: tuple[tuple[str, str], ...] = ()
    channels: int = 64
    parts: dict[str, tuple[str, int, int]] = {}  # noqa: RUF012
    before: Callable[[torch.Tensor], torch.Tensor] | None = None


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

COORD = (
    ("conv1.", "gate.reduce."), ("bn1.", "gate.norm."),
    ("conv_h.", "gate.expand.0."), ("conv_w.", "gate.expand.1."),
    ("conv2.", "gate.expand.0."), ("conv3.", "gate.expand.1."),
)  # fmt: skip
SIMPLE_COORD = (("fc1.", "gate.reduce."), ("fc_h.", "gate.expand.0."), ("fc_w.", "gate.expand.1."))
ELA = (("conv.", "gate.convs.0."), ("gn.", "gate.norms.0."))
STRIPS = (
    ("conv_h.", "gate.convs.0."), ("conv_w.", "gate.convs.1."), ("norm_h.", "gate.norms.0."),
    ("norm_w.", "gate.norms.1."),
)  # fmt: skip
AIMED = (
    ("cSE.fc1.", "channel.gate.reduce."), ("cSE.fc2.", "channel.gate.expand."), ("sSE.", "position."),
)  # fmt: skip
SMP = (
    ("cSE.1.", "channel.gate.reduce."), ("cSE.3.", "channel.gate.expand."), ("sSE.0.", "position.conv."),
)  # fmt: skip
TRIPLET = (
    ("cw.conv.", "gates.0."), ("hc.conv.", "gates.1."), ("hw.conv.", "gates.2."), (".bn.", ".norm."),
)  # fmt: skip
MCA = (("h_cw.", "gates.0."), ("w_hc.", "gates.1."), ("c_hw.", "gates.2."))
EMA = (("gn.", "norm."), ("conv1x1.", "conv1."), ("conv3x3.", "conv3."))
MLCA = (("conv_local.", "local.conv."), ("conv.weight", "across.conv.weight"), ("local.across.", "local."))
SCSA = (
    ("local_dwc.", "spatial.gate.convs.0."), ("global_dwc_s.", "spatial.gate.convs.1."),
    ("global_dwc_m.", "spatial.gate.convs.2."), ("global_dwc_l.", "spatial.gate.convs.3."),
    ("norm_h.", "spatial.gate.norms.0."), ("norm_w.", "spatial.gate.norms.1."),
)  # fmt: skip
NAM = (("Channel_Att.bn2.", "norm."),)
CPCA = (
    ("ca.fc1.", "channel.gate.reduce."), ("ca.fc2.", "channel.gate.expand."), ("dconv5_5.", "first."),
    *((f"dconv1_{k}.", f"strips.{i}.0.") for i, k in enumerate((7, 11, 21))),
    *((f"dconv{k}_1.", f"strips.{i}.1.") for i, k in enumerate((7, 11, 21))),
    ("conv.", "project."),
)  # fmt: skip
GC_BOTH = (
    *GC_TIMM,
    ("mlp_add.fc1.", "shift.reduce."), ("mlp_add.norm.", "shift.norm."), ("mlp_add.fc2.", "shift.expand."),
)  # fmt: skip
INSIGHT = (
    ("conv2.", "branches.0.0."), ("bn2.", "branches.0.1."), ("conv2g.", "branches.1.0."), ("bn2g.", "branches.1.1."),
    ("conv_fc1.", "gate.reduce."), ("bn_fc1.", "gate.norm."), ("conv_fc2.", "gate.expand."),
)  # fmt: skip
SK = (
    *((f"{old}.{i}.{a}.", f"branches.{i}.{b}.") for old in ("paths", "convs") for i in range(4)
      for a, b in (("conv", 0), ("bn", 1))),
    ("attn.fc_reduce.", "gate.reduce."), ("attn.bn.", "gate.norm."), ("attn.fc_select.", "gate.expand."),
    ("fc.", "gate.reduce."),
)  # fmt: skip
SPLIT = (
    ("conv.", "convolution.0."), ("bn0.", "convolution.1."), ("fc1.", "gate.reduce."), ("bn1.", "gate.norm."),
    ("fc2.", "gate.expand."),
)  # fmt: skip
TIMM_SPATIAL = (("conv.conv.", "spatial.conv."), ("conv.bn.", "spatial.norm."))
FROM_TIMM = {"mlp_bias": True, "max_first": False}
SK_PARTS = {f"fcs.{i}.{leaf}": (f"gate.expand.{leaf}", i, 4) for i in range(4) for leaf in ("weight", "bias")}

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
    Case("cbam__timm_c32_k3_bias", "cbam", {**FROM_TIMM, "reduction": 8, "kernel_size": 3}, TIMM_CBAM, 32),
    Case(
        "cbam__timm_channel_only_bias_rd6",
        "cbam",
        {"spatial": False, "hidden": 6, "gate": "hard_sigmoid"},
        FC12,
        32,
    ),
    Case(
        "cbam__timm_light_c32_k5_bias",
        "cbam",
        {"average_pools": True, "hidden": 5, "kernel_size": 5},
        TIMM_CBAM,
        32,
    ),
    Case(
        "cbam__timm_light_spatial_only_k3",
        "cbam",
        {"channel": False, "average_pools": True, "kernel_size": 3},
        TIMM_SPATIAL,
        16,
    ),
    Case("cbam__timm_spatial_only_k7", "cbam", {"channel": False, "max_first": False}, TIMM_SPATIAL, 16),
    Case("coord__houqb_c32_r32", "coord", {}, COORD, 32),
    Case("coord__houqb_c64_r4_13x9", "coord", {"reduction": 4}, COORD),
    Case("coord__houqb_mbv2_c48_r5", "coord", {"reduction": 5}, COORD, 48),
    Case("coord__timm_c48_bias_skip", "coord", {"hidden": 12, "skip": True}, COORD, 48),
    Case("coord__timm_c64", "coord", {"reduction": 24, "divisor": 8, "bias": False}, COORD),
    Case("simple_coord__timm_c48", "simple_coord", {}, SIMPLE_COORD, 48),
    Case("simple_coord__timm_c64_rd12_skip", "simple_coord", {"hidden": 12, "skip": True}, SIMPLE_COORD),
    Case("strip__timm_c32", "strip", {}, STRIPS, 32),
    Case("strip__timm_c48_noconv_7x5", "strip", {"conv": False}, (), 48),
    Case("ela__scsarepo_c32_k7", "ela", {}, ELA, 32),
    Case("ela__scsarepo_c64_k5_9x6", "ela", {"kernel_size": 5}, ELA),
    Case("ela__timm_c32", "ela", {"shared": False, "groups": 1, "act": True}, STRIPS, 32),
    Case(
        "ela__timm_c48_bn_k5",
        "ela",
        {"shared": False, "norm": "batch", "act": True, "kernel_size": 5},
        STRIPS,
        48,
    ),
    Case("simam__c32", "simam", {}, (), 32),
    Case("simam__c48_l01_13x9", "simam", {"eps": 0.1}, (), 48),
    Case("cse__aimed_c32_r2", "cse", {}, FC12, 32),
    Case("sse__aimed_c32", "sse", {}, (), 32),
    Case("scse__aimed_c32_r2", "scse", {"combine": "max"}, AIMED, 32),
    Case("scse__smp_c32_r16", "scse", {"reduction": 16}, SMP, 32),
    Case("triplet__c32", "triplet", {}, TRIPLET, 32),
    Case("triplet__c16_nospatial_7x5", "triplet", {"spatial": False}, TRIPLET, 16),
    Case("mca__c32", "mca", {}, MCA, 32),
    Case("mca__c16_7x5", "mca", {}, MCA, 16),
    Case("mca__c48_nospatial_9x6", "mca", {"channel": False}, MCA, 48),
    Case("sge__c64_g8", "sge", {"groups": 8}),
    Case("sge__c32_g32_9x6", "sge", {}, (), 32),
    Case("ema__c64_f32", "ema", {}, EMA),
    Case("ema__c64_f8_13x9", "ema", {"groups": 8}, EMA),
    Case("mlca__c64", "mlca", {}, MLCA),
    Case("mlca__c128_7x11", "mlca", {"local_weight": 0.7}, MLCA, 128),
    Case("mlca__c16_g1_s3_13x9", "mlca", {"gamma": 1, "local_size": 3, "local_weight": 0.3}, MLCA, 16),
    Case("mlca__option1_c32", "mlca", {"learned": True}, MLCA, 32),
    Case("scsa__c32_h4", "scsa", {"heads": 4}, SCSA, 32),
    Case("scsa__c32_h4_softmax", "scsa", {"heads": 4, "window": 3, "gate": "softmax"}, SCSA, 32),
    Case("scsa__c48_h6_global", "scsa", {"heads": 6, "window": 0}, SCSA, 48),
    Case("scsa__c64_h8_w3_bias_13x9", "scsa", {"window": 3, "bias": True}, SCSA),
    Case("nam__c32", "nam", {}, NAM, 32),
    Case("nam__c48_9x6", "nam", {}, NAM, 48),
    Case("cpca__c16", "cpca", {}, CPCA, 16),
    Case("lct__external_c64_g8", "lct", {}, (("w", "gate.norm.weight"), ("b", "gate.norm.bias"))),
    Case("lct__external_c48_g16_9x6", "lct", {"groups": 16}, (("w", "gate.norm.weight"), ("b", "gate.norm.bias")), 48),
    Case("grn__convnextv2_c32", "grn", {}, (), 32),
    Case("grn__timm_c48_7x5", "grn", {}, (("weight", "gamma"), ("bias", "beta")), 48),
    Case("gc__timm_c32_both", "gc", {"fusion": "both", "reduction": 8, "eps": 1e-6}, GC_BOTH, 32),
    Case(
        "gc__timm_c32_both_hardsigmoid",
        "gc",
        {"fusion": "both", "reduction": 8, "divisor": 8, "gate": "hard_sigmoid", "eps": 1e-6},
        GC_BOTH,
        32,
    ),
    Case(
        "gc__timm_c48_noattn",
        "gc",
        {"fusion": "multiply", "pool": "average", "reduction": 4, "eps": 1e-6},
        GC_TIMM,
        48,
    ),
    Case("ese__timm_c32_maxpool", "ese", {"pool": "avg+max"}, (("fc.", "gate.fc."),), 32),
    Case("ese__timm_c48_sigmoid_7x5", "ese", {"gate": "sigmoid"}, (("fc.", "gate.fc."),), 48),
    Case(
        "sk__insight_c64",
        "sk",
        {"dilations": (1, 1), "groups": (1, 32), "least": 1},
        INSIGHT,
        before=torch.relu,
    ),
    Case(
        "sk__insight_c32_s2_7x5",
        "sk",
        {"dilations": (1, 1), "groups": (1, 32), "least": 1, "stride": 2},
        INSIGHT,
        32,
        before=torch.relu,
    ),
    Case("sk__timm_c32", "sk", {"split": True, "groups": (1, 1), "divisor": 8, "least": 8}, SK, 32),
    Case(
        "sk__timm_c32_nosplit_k5",
        "sk",
        {"kernels": (3, 5), "groups": (4, 4), "hidden": 8},
        SK,
        32,
    ),
    Case(
        "sk__external_c32",
        "sk",
        {
            "kernels": (1, 3, 5, 7),
            "groups": (1, 1, 1, 1),
            "bias": True,
            "norm": False,
        },
        SK,
        32,
        SK_PARTS,
    ),
    Case("split__resnest_c32_r2", "split", {}, SPLIT, 32),
    Case("split__resnest_c72_r2_7x5", "split", {}, SPLIT, 72),
    Case("split__timm_c32_r2", "split", {"divisor": 8}, SPLIT, 32),
    Case("split__timm_c72_r2_7x5", "split", {"divisor": 8}, SPLIT, 72),
    Case("split__timm_c32_r2_g2_nonorm", "split", {"groups": 2, "norm": False, "hidden": 16}, SPLIT, 32),
    Case("split__timm_c48_r1_out32", "split", {"radix": 1, "out_channels": 32}, SPLIT, 48),
]

# Parts and blocks: below, and in tests/networks.
ELSEWHERE = {
    "ma__softban_c16",
    "emca__basic_block1_stage3",
    "emca__basic_block2_stage1",
    "emca__basic_block2_stage3",
}


def test_every_golden_file_is_used() -> None:
    files = {path.stem for path in (goldens.FOLDER / "modules").glob("*.json")}
    assert {case.file for case in CASES} | ELSEWHERE == files


def rename(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in names:
        key = key.replace(theirs, ours, 1)
    return key


def load(module: nn.Module, data: dict[str, Any], case: Case) -> None:
    """Fill by the reference's names, rename, and load strictly; a shape may differ by axes of size one."""
    own = module.state_dict()
    state: dict[str, torch.Tensor] = {}
    parts: dict[str, list[torch.Tensor]] = {}
    for key, value in goldens.fill_state(data).items():
        if key in case.parts:
            parts.setdefault(case.parts[key][0], []).append(value)  # in the order of the reference
        else:
            state[rename(key, case.names)] = value
    state |= {key: torch.cat(values) for key, values in parts.items()}
    missing = {k for k in own if k not in state and not k.endswith("num_batches_tracked")}
    assert not missing, missing
    assert set(state) <= set(own), set(state) - set(own)
    module.load_state_dict({k: state[k].reshape(own[k].shape) if k in state else own[k] for k in own})


def check(module: nn.Module, data: dict[str, Any], case: Case) -> None:
    learned = sum(p.numel() for p in module.parameters())
    assert learned == data["param_count"]
    for mode in ("eval", "train"):
        if mode not in data:
            continue
        load(module, data, case)
        module.train(mode == "train")
        module.zero_grad(set_to_none=True)
        x = goldens.make_input(data).requires_grad_()
        out = module(x if case.before is None else case.before(x))
        expected = data[mode]
        goldens.check_output(out, expected)
        loss = out.square().mean()
        assert goldens.close(loss.item(), expected["loss"], expected["loss"], 1e-8)
        loss.backward()
        assert goldens.close(float(x.grad.norm()), expected["grad_input_l2"], expected["grad_input_l2"], 1e-6)
        own = dict(module.named_parameters())

        def gradient(key: str, own: dict[str, nn.Parameter] = own) -> torch.Tensor | None:
            if key not in case.parts:
                return own[rename(key, case.names)].grad
            ours, which, count = case.parts[key]
            return own[ours].grad.chunk(count)[which]

        if expected["grad_l2"]:
            goldens.check_gradients(data, expected["grad_l2"], gradient)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.file)
def test_equals_the_original(case: Case) -> None:
    data = goldens.load(f"modules/{case.file}")
    module = excite.create_attention(case.method, case.channels, **case.options).double()
    check(module, data, case)


def test_soft_norm_equals_the_original() -> None:
    from excite.methods.emanet import SoftNorm

    names = (
        ("running", "norm.running"),
        ("num_b", "norm.num_b"),
        ("weight_readjust", "readjust_weight"),
        ("bias_readjust", "readjust_bias"),
    )
    case = Case("ma__softban_c16", "ma", {}, names, 16)
    check(SoftNorm(2, 16).double(), goldens.load(f"modules/{case.file}"), case)
