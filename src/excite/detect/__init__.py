"""Detection and instance segmentation with attention backbones."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from excite.detect.card import DetectorCard
    from excite.detect.checkpoint import load_detector
    from excite.detect.config import DetectConfig
    from excite.detect.detector import create_detector

_PUBLIC = {
    "DetectConfig": "config",
    "DetectorCard": "card",
    "create_detector": "detector",
    "load_detector": "checkpoint",
}

__all__ = ["DetectConfig", "DetectorCard", "create_detector", "load_detector"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: options and recipes must be readable without torch."""
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"excite.detect.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'excite.detect' has no attribute {name!r}")
