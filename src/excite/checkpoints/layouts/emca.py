"""EMCA's repository, the released form: `pre`, `stageS.B.residual.I`, local and global excitations."""

from excite.checkpoints.layouts.base import Layout

STAGE = r"stage(\d+)\.(\d+)\."
UNUSED = "a parameter that the released network never uses (first block of a stage)"


BACKBONE = [
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
    (STAGE + r"out_fusion\.0\.weight", r"layer\1.\2.attention.join"),
]
GLOBAL = STAGE + r"ECA_excitation_global(?:_stage)?"
IGNORE = [(r"stage\d+\.0\.(ECA_excitation_global(_stage)?|stage_in_fusion|out_fusion)\..*", UNUSED)]

EMCA_ECA = Layout(
    name="EMCA-ECA, the released form (eslambakr/EMCA)",
    mark=r"stage1\.0\.ECA_excitation_local\.0\.weight",
    rules=[
        *BACKBONE,
        (STAGE + r"ECA_excitation_local\.0\.", r"layer\1.\2.attention.gate.conv."),
        (GLOBAL + r"\.0\.", r"layer\1.\2.attention.across.conv."),
    ],
    ignore=IGNORE,
    method="emca_eca",
)

EMCA_SE = Layout(
    name="EMCA-SE, the released form (eslambakr/EMCA)",
    mark=r"stage1\.0\.ECA_excitation_local\.2\.weight",
    rules=[
        *BACKBONE,
        (STAGE + r"ECA_excitation_local\.0\.", r"layer\1.\2.attention.gate.reduce."),
        (STAGE + r"ECA_excitation_local\.2\.", r"layer\1.\2.attention.gate.expand."),
        (GLOBAL + r"\.0\.", r"layer\1.\2.attention.across.reduce."),
        (GLOBAL + r"\.2\.", r"layer\1.\2.attention.across.expand."),
    ],
    ignore=IGNORE,
    method="emca_se",
)
