"""Pictures and numbers of what a network looks at: Grad-CAM, channel scales, pulled weights (docs/explain.md)."""

from excite.explain.cam import CamResult, grad_cam
from excite.explain.gates import GateRecorder, Site, find_sites, recorded
from excite.explain.intervention import can_be_pulled, pull, pulled
from excite.explain.kernels import learned_parts
from excite.explain.networks import Network, open_network, open_networks
from excite.explain.scales import SiteScales, collect_scales

__all__ = [
    "CamResult",
    "GateRecorder",
    "Network",
    "Site",
    "SiteScales",
    "can_be_pulled",
    "collect_scales",
    "find_sites",
    "grad_cam",
    "learned_parts",
    "open_network",
    "open_networks",
    "pull",
    "pulled",
    "recorded",
]
