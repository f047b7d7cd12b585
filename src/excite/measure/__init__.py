"""Measuring: counts by named convention, the papers' tables, latency and throughput.

`profile_model` counts; `measure.bench` times; `measure.tables` sets published numbers beside computed ones.
"""

from excite.measure.conventions import CONVENTIONS
from excite.measure.profile import Profile, profile_model

__all__ = ["CONVENTIONS", "Profile", "profile_model"]
