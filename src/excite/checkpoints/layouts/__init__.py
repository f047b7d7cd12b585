"""The families of files that are recognised, by their keys; one file per family."""

from excite.checkpoints.layouts.base import Layout, State
from excite.checkpoints.layouts.cbam_bam import BAM, CBAM, CBAM_CHANNEL
from excite.checkpoints.layouts.ecanet import ECANET, ECANET_MOBILE
from excite.checkpoints.layouts.emanet import EMANET, EMANET_CBAM, EPSANET
from excite.checkpoints.layouts.emca import EMCA_ECA, EMCA_SE
from excite.checkpoints.layouts.fcanet import FCANET
from excite.checkpoints.layouts.se_sa import SANET, SENET
from excite.checkpoints.layouts.srm import SRM, SRM_GE, SRM_SE
from excite.checkpoints.layouts.timm_torchvision import (
    EMANET_RESNET,
    MOBILENET,
    RESNET,
    TIMM_CBAM,
    TIMM_ECA,
    TIMM_SE,
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
