"""Functions in Python files of the user's own, named as path/to/file.py:function."""

import importlib.util
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from excite.errors import ExciteError, UsageError, unknown

# Any: what somebody's function takes and returns.

NAMED = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)", re.DOTALL)


def is_python(name: str) -> bool:
    """Return whether a name is that of a function in a Python file."""
    return NAMED.fullmatch(name) is not None


def load_module(what: str, name: str, path: str) -> ModuleType:
    """Run a Python file and return it as a module; what, name: the kind of thing and how it was named, for messages.

    The file finds modules that lie beside it, as a script does.
    Raises UsageError where it is missing, ExciteError where it fails.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"{what} {name!r}: no file {path!r}; expected path/to/file.py:factory")
    module_name = f"{file.stem}_{zlib.crc32(str(file.resolve()).encode()):08x}"  # no module of another place
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{what} {name!r}: {path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[module_name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise ExciteError(f"{what} {name!r}: {path} failed on import: {type(error).__name__}: {error}") from error
    return module


def member(what: str, name: str, module: ModuleType) -> Callable[..., Any]:
    """Return the function (or class) of a module that `name` (path/to/file.py:function) means. Raises UsageError."""
    path, _, function = name.rpartition(":")
    if not hasattr(module, function):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise unknown(f"factory in {path}:", function, names)
    build = getattr(module, function)
    if not callable(build):
        raise UsageError(f"{what} {name!r}: {function} is {type(build).__name__}, not a function")
    return build


def load_function(what: str, name: str) -> Callable[..., Any]:
    """Run a Python file and return the function that `name` (path/to/file.py:function) means.

    Raises UsageError where the file or the function is missing, ExciteError where the file fails.
    """
    return member(what, name, load_module(what, name, name.rpartition(":")[0]))
