"""Training of classifiers: `fit(TrainConfig(...))` (docs/training.md)."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from excite.train.config import TrainConfig

if TYPE_CHECKING:
    from excite.train.fit import FitResult, fit

# Any: a module's attributes are of every kind.

__all__ = ["FitResult", "TrainConfig", "fit"]


class _Package(ModuleType):
    """A package whose `fit` is the function, whoever imports the sub-module of that name first."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.fit if name == "fit" and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for; the configuration alone is light."""
    if name in ("fit", "FitResult"):
        return getattr(importlib.import_module("excite.train.fit"), name)
    raise AttributeError(f"module 'excite.train' has no attribute {name!r}")
