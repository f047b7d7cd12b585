"""`FILE.py:FACTORY`: data that a function in a Python file of the user's own gives."""

import inspect
import os
from typing import Any

from excite.common.pyfile import is_python, load_function
from excite.errors import ExciteError, UsageError

# Any: what somebody's function gives.


def call_factory(name: str) -> Any:
    """Return what the function gives: data sets, a DataBundle, or the spec of other data (text).

    Raises UsageError where it cannot be called or names a program again, ExciteError where it fails.
    """
    factory = load_function("data", name)
    try:
        required = [p.name for p in inspect.signature(factory).parameters.values() if _is_required(p)]
    except (TypeError, ValueError):  # of what is built in
        required = []
    if required:
        raise UsageError(f"data {name!r}: the factory takes {', '.join(required)}; it is called without arguments")
    try:
        data = factory()
    except ExciteError:
        raise
    except (Exception, SystemExit) as error:
        raise ExciteError(f"data {name!r}: the factory failed: {type(error).__name__}: {error}") from error
    if isinstance(data, str | os.PathLike):
        data = os.fspath(data)
        if is_python(data):
            raise UsageError(f"data {name!r}: the factory gives {data!r}, a program again; a data spec is needed")
    if data is None:
        raise UsageError(f"data {name!r}: the factory gives None; does it end with `return`?")
    return data


def _is_required(parameter: inspect.Parameter) -> bool:
    plain = parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return plain and parameter.default is inspect.Parameter.empty
