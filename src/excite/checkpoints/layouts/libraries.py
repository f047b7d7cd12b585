"""timm's ResNets with attention, and plain networks as torchvision, timm and EMANet's repository store them."""

from excite.checkpoints.layouts.base import BLOCK, Layout

TIMM_ECA = Layout(
    name="timm ResNet with ECA",
    mark=r"layer\d+\.\d+\.se\.conv\.weight",
    rules=[(BLOCK + r"se\.", r"\1attention.gate.")],
    method="eca",
    note="timm's circular ECA (ceca) has the same keys; a file of it would be taken for ECA",
)

TIMM_SE = Layout(
    name="timm ResNet with SE",
    mark=r"layer\d+\.\d+\.se\.fc1\.weight",
    rules=[
        (BLOCK + r"se\.fc1\.", r"\1attention.gate.reduce."),
        (BLOCK + r"se\.fc2\.", r"\1attention.gate.expand."),
    ],
    method="se",
)

TIMM_CBAM = Layout(
    name="timm ResNet with CBAM",
    mark=r"layer\d+\.\d+\.se\.channel\.fc1\.weight",
    rules=[
        (BLOCK + r"se\.channel\.fc1\.", r"\1attention.channel.gate.reduce."),
        (BLOCK + r"se\.channel\.fc2\.", r"\1attention.channel.gate.expand."),
        (BLOCK + r"se\.spatial\.conv\.conv\.", r"\1attention.spatial.conv."),
        (BLOCK + r"se\.spatial\.conv\.bn\.", r"\1attention.spatial.norm."),
    ],
    method="cbam",
    options=lambda state: {"max_first": False},
)

EMANET_RESNET = Layout(
    name="ResNet or RegNet of EMANet's repository (`shortcut`, `linear`)",
    mark=r"layer\d+\.0\.shortcut\.0\.weight",
    rules=[
        (BLOCK + r"shortcut\.", r"\1downsample."),
        (BLOCK + r"se\.se1\.", r"\1inner.gate.reduce."),
        (BLOCK + r"se\.se2\.", r"\1inner.gate.expand."),
        (r"linear\.", "fc."),
    ],
    method="none",
)

RESNET = Layout(name="plain ResNet (torchvision, timm)", mark=r"layer1\.0\.conv1\.weight", method="none")

MOBILENET = Layout(name="MobileNetV2 (torchvision)", mark=r"features\.1\.conv\.0\.0\.weight", method="none")
