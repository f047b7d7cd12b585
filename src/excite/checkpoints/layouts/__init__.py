"""The families of files that are recognised, by their keys: tables of the papers' repositories and of libraries."""

from excite.checkpoints.layouts.base import Layout, State
from excite.checkpoints.layouts.libraries import (
    EMANET_RESNET,
    MOBILENET,
    RESNET,
    TIMM_CBAM,
    TIMM_ECA,
    TIMM_SE,
)
from excite.checkpoints.layouts.published import (
    BAM,
    CBAM,
    CBAM_CHANNEL,
    ECANET,
    ECANET_MOBILE,
    EMANET,
    EMANET_CBAM,
    EMCA_ECA,
    EMCA_SE,
    EPSANET,
    FCANET,
    SANET,
    SENET,
    SRM,
    SRM_GE,
    SRM_SE,
)

OURS = Layout(name="excite", mark=r".*\.attention\..*|attention_after\d+\..*|layer1\.0\.conv2\.branches\.0\..*")

# The plain ones last: every ResNet has their keys.
LAYOUTS: tuple[Layout, ...] = (
    OURS,
    EMCA_SE,
    EMCA_ECA,
    ECANET,
    ECANET_MOBILE,
    EMANET,
    EPSANET,
    EMANET_CBAM,
    FCANET,
    SANET,
    SENET,
    SRM,
    SRM_SE,
    SRM_GE,
    CBAM,
    CBAM_CHANNEL,
    BAM,
    TIMM_ECA,
    TIMM_SE,
    TIMM_CBAM,
    EMANET_RESNET,
    RESNET,
    MOBILENET,
)


def recognise(state: State) -> Layout | None:
    """Return the layout of a state dict, or None."""
    return next((layout for layout in LAYOUTS if layout.recognises(state)), None)


__all__ = ["LAYOUTS", "OURS", "Layout", "recognise"]
