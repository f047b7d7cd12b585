"""Checkpoints: ours, the papers' published layouts, timm's and torchvision's.

Names are imported when they are first used: a command line that only prints its help needs none.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excite.checkpoints.bundle import load_bundle, save_bundle
    from excite.checkpoints.importing import import_checkpoint
    from excite.checkpoints.loading import load_checkpoint
    from excite.checkpoints.report import TransferReport
    from excite.models import NetworkSpec

_PUBLIC = {
    "NetworkSpec": "excite.models",
    "TransferReport": "excite.checkpoints.report",
    "import_checkpoint": "excite.checkpoints.importing",
    "load_bundle": "excite.checkpoints.bundle",
    "load_checkpoint": "excite.checkpoints.loading",
    "save_bundle": "excite.checkpoints.bundle",
}

__all__ = [
    "NetworkSpec", "TransferReport", "import_checkpoint", "load_bundle", "load_checkpoint", "save_bundle",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'excite.checkpoints' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
