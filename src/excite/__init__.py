"""Channel attention for convolutional networks: every method, fairly compared, at almost no cost.

Names are imported when they are first used, so that `import excite` costs nothing.
"""

import importlib
from typing import Any

# Any: a module's attributes are of every kind.

__version__ = "0.1.0"

_FUNCTIONS = {
    "ExciteError": "excite.errors",
    "UsageError": "excite.errors",
    "attach": "excite.surgery",
    "compare": "excite.comparison",
    "convert_norms": "excite.surgery",
    "create_attention": "excite.registry",
    "create_detector": "excite.detect",
    "create_model": "excite.models",
    "detach": "excite.surgery",
    "fit": "excite.train.api",
    "import_checkpoint": "excite.checkpoints",
    "load": "excite.loading",
    "list_methods": "excite.registry",
    "list_models": "excite.backbones.names",
    "load_checkpoint": "excite.checkpoints",
    "register_method": "excite.registry",
    "sites": "excite.surgery",
}
_MODULES = ("gates", "ops", "squeezes")

__all__ = [  # noqa: PLE0604  (the names above, in one place)
    "__version__",
    *_FUNCTIONS,
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use. Raises MissingLibraryError where it needs an extra that is not installed."""
    if name not in _FUNCTIONS and name not in _MODULES:
        raise AttributeError(f"module 'excite' has no attribute {name!r}")
    try:
        if name in _MODULES:
            return importlib.import_module(f"excite.{name}")
        value = getattr(importlib.import_module(_FUNCTIONS[name]), name)
    except ModuleNotFoundError as error:
        from excite.common.extras import explain

        raise explain(error) or error from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
