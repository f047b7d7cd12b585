"""A typed function and a command line -> the arguments to call it with. jsonargparse reads types and files.

Parameters before `*` stand alone, the others are options; a dataclass's fields are options too. Where the function's
module has `<name>_defaults(given)`, what it returns are the defaults (recipes work so); `given` holds what the command
line, or else a configuration file, says, by name.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from excite.card import code_refused, command_refused, is_plain
from excite.cli.help import help_text
from excite.cli.signature import REQUIRED, Option, gather, read_options
from excite.cli.words import CommandLine, metavar, missing, read_words, tokens
from excite.common.holdout import read_cut
from excite.common.options import FORMER_OPTIONS, current, flag, merge
from excite.common.pyfile import is_python
from excite.errors import UsageError, near

# Any: options have every kind of type and value; argparse and jsonargparse take them as they are.

# Options that name networks: what a file says of them never runs a Python file.
NETWORKS = {"model", "models", "backbone", "checkpoint", "checkpoints", "compare", "baseline"}


def parse(function: Callable[..., Any], prog: str, argv: list[str]) -> dict[str, Any] | None:
    """Return the arguments to call `function` with, or None when --help or --print_config was answered.

    Raises UsageError for anything that does not parse.
    """
    options = read_options(function)
    if {"-h", "--help"} & set(argv):
        print(help_text(function, prog, options))
        return None
    line = read_words(argv, options, prog)
    files = {file: _read_file(file, options) for file in line.configs}
    _refuse_code(files, line)
    defaults = _defaults(function, line, files)
    parser = _parser(options, defaults)
    below = {o.name: merge(*_layers(o, defaults, files)) for o in options if o.is_mapping}
    try:
        configs = [f"--config={_in_todays_words(file, values)}" for file, values in files.items()]
        values = vars(parser.parse_args(configs + tokens(line, below)))  # files first, so that options win
    except SystemExit as stop:
        if stop.code:
            raise
        return None
    except argparse.ArgumentError as error:
        raise _culprit(parser, options, line, files, defaults) or UsageError(str(error).splitlines()[0]) from None
    absent = missing(options, values, line, prog)
    if absent is not None:
        raise absent
    return gather(function, options, values)


def _refuse_code(files: dict[str, dict[str, Any]], line: CommandLine) -> None:
    """Raise ExciteError where a configuration file names a Python file, as network or data, that nobody typed."""
    for file, values in files.items():
        for name in NETWORKS - set(line.names()):
            words = values.get(name)
            for word in words if isinstance(words, list) else [words]:
                if isinstance(word, str) and ":" in word.removeprefix("random:"):
                    raise code_refused(file, word, flag(name))
        for name in {"attach", "methods"} - set(line.names()):
            if ".py:" in (text := str(values.get(name, ""))):
                raise code_refused(file, text, flag(name))
        if "data" not in line.names() and is_python(place := read_cut(str(values.get("data", "")))[0]):
            raise code_refused(file, place, "--data")
        if "wds:pipe:" in str(values.get("data", "")) and "data" not in line.names():
            raise command_refused(file, str(values["data"]))


def _defaults(function: Callable[..., Any], line: CommandLine, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    hook = getattr(sys.modules[function.__module__], f"{function.__name__.rstrip('_')}_defaults", None)
    given: dict[str, Any] = {}
    for values in files.values():
        given |= values
    return hook(given | line.names()) if hook else {}


def _layers(option: Option, defaults: dict[str, Any], files: dict[str, dict[str, Any]]) -> list[Any]:
    """What is said of an option that is a mapping: the last file that names it replaces the default."""
    layers = [defaults.get(option.name, option.default)]
    for values in files.values():
        if isinstance(values.get(option.name), dict):
            layers = [values[option.name]]
    return layers


def _read_file(file: str, options: list[Option]) -> dict[str, Any]:
    """Return what a configuration file says. Raises UsageError where it is none or has an unknown option."""
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(f"--config {file}: no such file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that is none
        raise UsageError(f"--config {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not is_plain(content):
        raise UsageError(f"--config {file} is not a mapping of option: value")
    known = [option.name for option in options]
    for name in content:
        if name not in known and name in FORMER_OPTIONS:
            raise UsageError(f"{file}: {name!r} is now {FORMER_OPTIONS[name]}")
        if name not in known:
            close = near(str(name), known)
            raise UsageError(f"{file}: unknown option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return content


def _in_todays_words(file: str, values: dict[str, Any]) -> str:
    """Return the file, or what it should say where it uses words of earlier versions (which `values` then do not)."""
    import yaml

    changed = {name: current(name, value) for name, value in values.items()}
    if changed == values:
        return file
    values |= changed
    return yaml.safe_dump(values)


def _parser(options: list[Option], defaults: dict[str, Any]) -> Any:
    """A jsonargparse parser of options only: words that stand alone have been given their names."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action="config")
    for option in options:
        default = defaults.get(option.name, None if option.default is REQUIRED else option.default)
        kind = dict if option.is_mapping else option.type  # dict alone: words in it stay as they are
        parser.add_argument(f"--{option.name}", type=kind, default=default)
    return parser


def _culprit(
    parser: Any,
    options: list[Option],
    line: CommandLine,
    files: dict[str, dict[str, Any]],
    defaults: dict[str, Any],
) -> UsageError | None:
    """The error for the first value that does not fit its option, in words."""
    for option, key, words in line.values:
        word = tokens(CommandLine([(option, key, words)]))
        if not _parses(parser.parse_args, word):
            where = metavar(option) if option.positional else option.flag
            return UsageError(f"{where} {' '.join(words)}: expected {_expected(option, words)}")
    for where, name, value in _stored(files, defaults):
        if not _parses(parser.parse_object, {name: value}):
            option = next(o for o in options if o.name == name)
            return UsageError(f"{where}: {name} {value!r}: expected {option.expected}")
    return None


def _stored(files: dict[str, dict[str, Any]], defaults: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for file, values in [*files.items(), ("recipe or run", defaults)]:
        for name, value in values.items():
            yield file, name, value


def _expected(option: Option, words: list[str]) -> str:
    close = [c for w in words if w not in option.choices for c in near(w, map(str, option.choices), 1)]
    return option.expected + (f"; did you mean {close[0]!r}?" if close else "")


def _parses(read: Callable[[Any], Any], source: Any) -> bool:
    try:
        read(source)
    except (argparse.ArgumentError, ValueError, TypeError):
        return False
    return True
