"""Attention for networks that came without: find the sites, put it in, take it out."""

from excite.surgery.carrier import convert_norms
from excite.surgery.find import sites
from excite.surgery.insert import attach, detach
from excite.surgery.report import AttachReport
from excite.surgery.site import PRESETS, Site

__all__ = ["PRESETS", "AttachReport", "Site", "attach", "convert_norms", "detach", "sites"]
