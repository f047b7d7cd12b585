"""Attention for networks that came without: find the sites, put it in, take it out."""

from excite.surgery.carrier import convert_norms
from excite.surgery.find import PRESETS, Site, sites
from excite.surgery.insert import AttachReport, attach, detach

__all__ = ["PRESETS", "AttachReport", "Site", "attach", "convert_norms", "detach", "sites"]
