"""Detection and instance segmentation with attention backbones."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excite.card import DetectorCard
    from excite.detect.checkpoint import load_detector
    from excite.detect.config import DetectConfig
    from excite.detect.detector import create_detector

_PUBLIC = {
    "DetectConfig": "excite.detect.config",
    "DetectorCard": "excite.card",
    "create_detector": "excite.detect.detector",
    "load_detector": "excite.detect.checkpoint",
}

__all__ = ["DetectConfig", "DetectorCard", "create_detector", "load_detector"]


def __getattr__(name: str) -> object:
    """Import a public name on first use: options and recipes must be readable without torch."""
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'excite.detect' has no attribute {name!r}")
