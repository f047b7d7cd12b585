"""Channel attention for convolutional networks: every method, fairly compared, at almost no cost.

Names are imported when they are first used, so that `import excite` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ExciteError": "excite.errors",
    "UsageError": "excite.errors",
    "attach": "excite.surgery",
    "create_attention": "excite.registry",
    "create_detector": "excite.detect",
    "create_model": "excite.models",
    "detach": "excite.surgery",
    "import_checkpoint": "excite.checkpoints",
    "list_methods": "excite.registry",
    "list_models": "excite.backbones.names",
    "load_checkpoint": "excite.checkpoints",
    "sites": "excite.surgery",
}
_MODULES = ("gates", "ops", "squeezes")

__all__ = [
    "ExciteError",
    "UsageError",
    "__version__",
    "attach",
    "create_attention",
    "create_detector",
    "create_model",
    "detach",
    "gates",
    "import_checkpoint",
    "list_methods",
    "list_models",
    "load_checkpoint",
    "sites",
    "squeezes",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or a subpackage, on first use."""
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"excite.{name}")
    raise AttributeError(f"module 'excite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_MODULES])
