"""Attention for networks that came without: find the sites, put it in, take it out.

The package itself can be called: `excite.attach(model, "eca")`.
"""

import sys
from types import ModuleType
from typing import Any

from excite.attach.find import sites
from excite.attach.insert import attach, detach
from excite.attach.report import AttachReport
from excite.attach.site import PRESETS, Site

__all__ = ["PRESETS", "AttachReport", "Site", "attach", "detach", "sites"]


class _Callable(ModuleType):
    """`excite.attach` is both this package and the function of its name; whichever a reader gets, it can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> AttachReport:
        """Call `attach`."""
        return attach(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
