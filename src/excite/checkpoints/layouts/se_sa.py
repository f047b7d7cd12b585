"""SE as in senet.pytorch (and EMANet's repository), and SA-Net."""

from excite.checkpoints.layouts.base import BLOCK, Layout

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
