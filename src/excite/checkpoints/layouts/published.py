"""The tables of the papers' repositories: the key that tells a family, and what its keys are called here."""

from excite.checkpoints.layouts.base import BLOCK, Layout, State
from excite.checkpoints.layouts.spectrum import frequencies_of, sizes_of
from excite.common.options import Option

# ECA-Net's repository: ResNets (`layerS.B.eca.conv`) and MobileNetV2 (ECA as the last entry of `conv`).

ECANET = Layout(
    name="ECA-Net ResNet (BangguWu/ECANet)",
    mark=r"layer\d+\.\d+\.eca\.conv\.weight",
    rules=[(BLOCK + r"eca\.", r"\1attention.gate.")],
    method="eca",
)

ECANET_MOBILE = Layout(
    name="ECA-Net MobileNetV2 (BangguWu/ECANet)",
    mark=r"features\.\d+\.conv\.\d+\.conv\.weight",
    rules=[(r"(features\.\d+\.)conv\.\d+\.conv\.weight", r"\1attention.gate.conv.weight")],
    method="eca",
    note="this repository trains with a dropout of 0.25 before the classifier; the network here keeps it",
    options=lambda state: {"dropout": 0.25},
)


# SE as in senet.pytorch (and EMANet's repository), and SA-Net.

SENET = Layout(
    name="SE-ResNet (moskomule/senet.pytorch, and the copy in EMANet's repository)",
    mark=r"layer1\.0\.se\.fc\.0\.weight",
    rules=[
        (BLOCK + r"se\.fc\.0\.", r"\1attention.gate.reduce."),
        (BLOCK + r"se\.fc\.2\.", r"\1attention.gate.expand."),
    ],
    method="se",
)

SANET = Layout(
    name="SA-Net (wofmanaf/SA-Net, and the copy in EMANet's repository)",
    mark=r"layer1\.0\.sa\.cweight",
    rules=[
        (BLOCK + r"sa\.c(weight|bias)", r"\1attention.channel_\2"),
        (BLOCK + r"sa\.s(weight|bias)", r"\1attention.spatial_\2"),
        (BLOCK + r"sa\.gn\.", r"\1attention.norm."),
    ],
    method="sa",
)


# SRM's repository: `rclb` is SRM, SE with biases, or GE with a global depth-wise convolution.

SRM = Layout(
    name="SRM (hyunjaelee410/style-based-recalibration-module)",
    mark=r"layer1\.0\.rclb\.cfc",
    rules=[(BLOCK + r"rclb\.", r"\1attention.gate.")],
    method="srm",
)

SRM_SE = Layout(
    name="SE of SRM's repository (with biases)",
    mark=r"layer1\.0\.rclb\.fc\.0\.weight",
    rules=[
        (BLOCK + r"rclb\.fc\.0\.", r"\1attention.gate.reduce."),
        (BLOCK + r"rclb\.fc\.2\.", r"\1attention.gate.expand."),
    ],
    method="se",
)

SRM_GE = Layout(
    name="GE of SRM's repository (global depth-wise convolution)",
    mark=r"layer1\.0\.rclb\.conv\.0\.weight",
    rules=[
        (BLOCK + r"rclb\.conv\.0\.", r"\1attention.squeeze."),
        (BLOCK + r"rclb\.conv\.1\.", r"\1attention.squeeze.norm."),
    ],
    method="ge",
    options=lambda state: {"variant": "theta", "extent": 0},
)


# Jongchan's repository: CBAM in every block, BAM between the stages.

CBAM = Layout(
    name="CBAM (Jongchan/attention-module)",
    mark=r"layer1\.0\.cbam\.SpatialGate\.spatial\.conv\.weight",
    rules=[
        (BLOCK + r"cbam\.ChannelGate\.mlp\.1\.", r"\1attention.channel.gate.reduce."),
        (BLOCK + r"cbam\.ChannelGate\.mlp\.3\.", r"\1attention.channel.gate.expand."),
        (BLOCK + r"cbam\.SpatialGate\.spatial\.bn\.", r"\1attention.spatial.norm."),
        (BLOCK + r"cbam\.SpatialGate\.spatial\.conv\.", r"\1attention.spatial.conv."),
    ],
    method="cbam",
    options=lambda state: {"max_first": True},
)

CBAM_CHANNEL = Layout(
    name="CBAM without its spatial gate (Jongchan/attention-module, no_spatial)",
    mark=r"layer1\.0\.cbam\.ChannelGate\.mlp\.1\.weight",
    rules=[
        (BLOCK + r"cbam\.ChannelGate\.mlp\.1\.", r"\1attention.gate.reduce."),
        (BLOCK + r"cbam\.ChannelGate\.mlp\.3\.", r"\1attention.gate.expand."),
    ],
    method="cbam",
)

SPATIAL = r"bam(\d)\.spatial_att\.gate_s\.gate_s_"

BAM = Layout(
    name="BAM (Jongchan/attention-module; the code multiplies the two branches)",
    mark=r"bam1\.channel_att\.gate_c\.gate_c_fc_0\.weight",
    rules=[
        (r"bam(\d)\.channel_att\.gate_c\.gate_c_fc_0\.", r"attention_after\1.channel.reduce."),
        (r"bam(\d)\.channel_att\.gate_c\.gate_c_bn_1\.", r"attention_after\1.channel.norm."),
        (r"bam(\d)\.channel_att\.gate_c\.gate_c_fc_final\.", r"attention_after\1.channel.expand."),
        (SPATIAL + r"conv_reduce0\.", r"attention_after\1.spatial.0."),
        (SPATIAL + r"bn_reduce0\.", r"attention_after\1.spatial.1."),
        (SPATIAL + r"conv_di_0\.", r"attention_after\1.spatial.3."),
        (SPATIAL + r"bn_di_0\.", r"attention_after\1.spatial.4."),
        (SPATIAL + r"conv_di_1\.", r"attention_after\1.spatial.6."),
        (SPATIAL + r"bn_di_1\.", r"attention_after\1.spatial.7."),
        (SPATIAL + r"conv_final\.", r"attention_after\1.spatial.9."),
    ],
    method="bam",
    options=lambda state: {"combine": "product"},
)


# FcaNet: `att.fc` and the constant DCT basis `att.dct_layer.weight`, which may be absent.

CONSTANT = "a constant (the cosine basis) that is rebuilt here"


def _fca_options(state: State) -> dict[str, Option]:
    """Return selection and sizes: from the basis where the file has it, else those of the released networks."""
    return {"frequencies": frequencies_of(state, "top16"), "size": sizes_of(state, (56, 28, 14, 7))}


FCANET = Layout(
    name="FcaNet (cfzd/FcaNet, and the copy in EMANet's repository)",
    mark=r"layer1\.0\.att\.fc\.0\.weight",
    rules=[
        (BLOCK + r"att\.fc\.0\.", r"\1attention.gate.reduce."),
        (BLOCK + r"att\.fc\.2\.", r"\1attention.gate.expand."),
    ],
    ignore=[(r"layer\d+\.\d+\.att\.dct_layer\.weight", CONSTANT)],
    method="fca",
    options=_fca_options,
)


# EMANet's repository (CIFAR models; the `net` wrapper is taken off on reading) and EPSANet's.

BRANCH = BLOCK + r"conv2\.conv_(\d)"


def _numbered(rules: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rules for each of the four branches: conv_1 is branch 0."""
    return [
        (pattern.replace(r"conv_(\d)", f"conv_{i + 1}"), replacement.replace("BRANCH", f"branches.{i}"))
        for i in range(4)
        for pattern, replacement in rules
    ]


PYRAMID_GATE = [
    (BLOCK + r"conv2\.se\.(?:fc\.0|fc1)\.", r"\1conv2.gate.reduce."),
    (BLOCK + r"conv2\.se\.(?:fc\.2|fc2)\.", r"\1conv2.gate.expand."),
]

EMANET = Layout(
    name="EMANet (Xsmile-love/pytorch-emanet-master)",
    mark=r"layer1\.0\.conv2\.conv_1\.0\.weight",
    rules=[
        *_numbered(
            [
                (BRANCH + r"\.0\.", r"\1conv2.BRANCH.conv."),
                (BRANCH + r"\.2\.", r"\1conv2.BRANCH.norm."),
                (BRANCH + r"\.3\.0\.fn\.0\.", r"\1conv2.BRANCH.depthwise."),
                (BRANCH + r"\.3\.0\.fn\.2\.", r"\1conv2.BRANCH.depthwise_norm."),
                (BRANCH + r"\.3\.1\.fn\.0\.(weight|bias)_readjust", r"\1conv2.BRANCH.soft_norm.readjust_\2"),
                (BRANCH + r"\.3\.1\.fn\.0\.(weight|bias)", r"\1conv2.BRANCH.soft_norm.\2"),
                (BRANCH + r"\.3\.1\.fn\.0\.", r"\1conv2.BRANCH.soft_norm.norm."),
                (BRANCH + r"\.3\.1\.fn\.1\.", r"\1conv2.BRANCH.pointwise."),
                (BRANCH + r"\.3\.1\.fn\.3\.", r"\1conv2.BRANCH.pointwise_norm."),
            ]
        ),
        *PYRAMID_GATE,
    ],
    method="ma",
)

EPSANET = Layout(
    name="EPSANet (murufeng/EPSANet, and the copy in EMANet's repository)",
    mark=r"layer1\.0\.conv2\.conv_1\.weight",
    rules=[*_numbered([(BRANCH + r"\.", r"\1conv2.BRANCH.")]), *PYRAMID_GATE],
    method="psa",
)

EMANET_CBAM = Layout(
    name="CBAM of EMANet's repository (no biases, no spatial norm, mean before max)",
    mark=r"layer1\.0\.ca\.fc\.0\.weight",
    rules=[
        (BLOCK + r"ca\.fc\.0\.", r"\1attention.channel.gate.reduce."),
        (BLOCK + r"ca\.fc\.2\.", r"\1attention.channel.gate.expand."),
        (BLOCK + r"sa\.conv1\.", r"\1attention.spatial.conv."),
    ],
    method="cbam",
    options=lambda state: {"max_first": False},
)


# EMCA's repository, the released form: `pre`, `stageS.B.residual.I`, local and global excitations.

STAGE = r"stage(\d+)\.(\d+)\."
UNUSED = "a parameter that the released network never uses (first block of a stage)"


EMCA_BACKBONE = [
    (r"pre\.0\.", "conv1."),
    (r"pre\.1\.", "bn1."),
    (r"linear\.", "fc."),
    (STAGE + r"shortcut\.", r"layer\1.\2.downsample."),
    (STAGE + r"residual\.0\.", r"layer\1.\2.conv1."),
    (STAGE + r"residual\.1\.", r"layer\1.\2.bn1."),
    (STAGE + r"residual\.3\.", r"layer\1.\2.conv2."),
    (STAGE + r"residual\.4\.", r"layer\1.\2.bn2."),
    (STAGE + r"residual\.6\.", r"layer\1.\2.conv3."),
    (STAGE + r"residual\.7\.", r"layer\1.\2.bn3."),
    (STAGE + r"stage_in_fusion\.0\.", r"layer\1.\2.attention.fusion."),
    (STAGE + r"block_in_fusion\.0\.", r"layer\1.\2.attention.inside_fusion."),
    (STAGE + r"out_fusion\.0\.weight", r"layer\1.\2.attention.join"),
]
GLOBAL = STAGE + r"ECA_excitation_global(?:_stage)?"
WITHIN = STAGE + r"ECA_excitation_global_block"
EMCA_UNUSED = [(r"stage\d+\.0\.(ECA_excitation_global(_stage|_block)?|(stage|block)_in_fusion|out_fusion)\..*", UNUSED)]

EMCA_ECA = Layout(
    name="EMCA-ECA, the released form (eslambakr/EMCA)",
    mark=r"stage1\.0\.ECA_excitation_local\.0\.weight",
    rules=[
        *EMCA_BACKBONE,
        (STAGE + r"ECA_excitation_local\.0\.", r"layer\1.\2.attention.gate.conv."),
        (GLOBAL + r"\.0\.", r"layer\1.\2.attention.across.conv."),
        (WITHIN + r"\.0\.", r"layer\1.\2.attention.inside.conv."),
    ],
    ignore=EMCA_UNUSED,
    method="emca_eca",
)

EMCA_SE = Layout(
    name="EMCA-SE, the released form (eslambakr/EMCA)",
    mark=r"stage1\.0\.ECA_excitation_local\.2\.weight",
    rules=[
        *EMCA_BACKBONE,
        (STAGE + r"ECA_excitation_local\.0\.", r"layer\1.\2.attention.gate.reduce."),
        (STAGE + r"ECA_excitation_local\.2\.", r"layer\1.\2.attention.gate.expand."),
        (GLOBAL + r"\.0\.", r"layer\1.\2.attention.across.reduce."),
        (GLOBAL + r"\.2\.", r"layer\1.\2.attention.across.expand."),
        (WITHIN + r"\.0\.", r"layer\1.\2.attention.inside.reduce."),
        (WITHIN + r"\.2\.", r"layer\1.\2.attention.inside.expand."),
    ],
    ignore=EMCA_UNUSED,
    method="emca_se",
)
