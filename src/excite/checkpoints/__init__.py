"""Checkpoints: ours, the papers' published layouts, timm's and torchvision's.

Names are imported when they are first used: a command line that only prints its help needs none.
"""

import importlib
from typing import Any

_PUBLIC = {
    "NetworkSpec": "excite.models",
    "TransferReport": "excite.checkpoints.report",
    "import_checkpoint": "excite.checkpoints.importing",
    "load_bundle": "excite.checkpoints.bundle",
    "load_checkpoint": "excite.checkpoints.loading",
    "save_bundle": "excite.checkpoints.bundle",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'excite.checkpoints' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
