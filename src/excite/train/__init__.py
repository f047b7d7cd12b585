"""Training of classifiers: `fit(TrainConfig(...))` (docs/training.md)."""

from typing import TYPE_CHECKING, Any

from excite.train.config import TrainConfig

if TYPE_CHECKING:
    from excite.train.fit import FitResult, fit

# Any: a module's attributes are of every kind.

__all__ = ["FitResult", "TrainConfig", "fit"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for; the configuration alone is light."""
    if name in ("fit", "FitResult"):
        import importlib

        # Bound here because importing the sub-module `fit` would otherwise leave the module under the function's name.
        module = importlib.import_module("excite.train.fit")
        globals().update(fit=module.fit, FitResult=module.FitResult)
        return globals()[name]
    raise AttributeError(f"module 'excite.train' has no attribute {name!r}")
