"""ECA-Net's repository: ResNets (`layerS.B.eca.conv`) and MobileNetV2 (ECA as the last entry of `conv`)."""

from excite.checkpoints.layouts.base import BLOCK, Layout

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
