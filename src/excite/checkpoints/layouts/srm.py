"""SRM's repository: `rclb` is SRM, SE with biases, or GE with a global depth-wise convolution."""

from excite.checkpoints.layouts.base import BLOCK, Layout

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
