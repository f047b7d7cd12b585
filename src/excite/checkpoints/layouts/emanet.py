"""EMANet's repository (CIFAR models; the `net` wrapper is taken off on reading) and EPSANet's."""

from excite.checkpoints.layouts.base import BLOCK, Layout

BRANCH = BLOCK + r"conv2\.conv_(\d)"


def _numbered(rules: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rules for each of the four branches: conv_1 is branch 0."""
    return [
        (pattern.replace(r"conv_(\d)", f"conv_{i + 1}"), replacement.replace("BRANCH", f"branches.{i}"))
        for i in range(4)
        for pattern, replacement in rules
    ]


BOTTLENECK = [
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
        *BOTTLENECK,
    ],
    method="ma",
)

EPSANET = Layout(
    name="EPSANet (murufeng/EPSANet, and the copy in EMANet's repository)",
    mark=r"layer1\.0\.conv2\.conv_1\.weight",
    rules=[*_numbered([(BRANCH + r"\.", r"\1conv2.BRANCH.")]), *BOTTLENECK],
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
