"""Jongchan's repository: CBAM in every block, BAM between the stages."""

from excite.checkpoints.layouts.base import BLOCK, Layout

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
