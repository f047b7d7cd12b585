"""A typed function -> a command line.

Parameters before `*` are positional, keyword-only ones are options (`limit_train` -> `--limit-train`); a parameter
whose type is a dataclass is replaced by the dataclass's fields. Help texts come from the docstring's `Args:`. Where the
function's module has a function `<name>_defaults(argv) -> dict`, what it returns replaces the defaults before parsing
(recipes work so).
"""

import argparse
import contextlib
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from excite.errors import UsageError, near

SIMPLE = (str, int, float, bool)


class Option(NamedTuple):
    """One parameter as the command line sees it."""

    name: str
    type: Any
    default: Any  # inspect.Parameter.empty where it is required
    positional: bool
    help: str
    owner: str | None  # the parameter that takes the dataclass this field belongs to

    @property
    def required(self) -> bool:
        """Whether the user must give it."""
        return self.default is inspect.Parameter.empty


def parse(function: Callable[..., Any], prog: str, argv: list[str]) -> dict[str, Any] | None:
    """Return the arguments to call `function` with, or None when --help or --print_config was answered.

    Raises UsageError for anything that does not parse.
    """
    options = read_options(function)
    if any(o.name == "output" for o in options):
        argv = ["--output" if a == "-o" else a for a in argv]
    defaults = _preset(function, argv)
    plain = not any(a.split("=")[0] in ("--config", "--print_config") for a in argv) and all(map(_is_simple, options))
    if plain:
        parser: Any = _plain_parser(options, defaults)
    else:
        parser, argv = _full_parser(options, defaults, argv)
    parser.prog = prog
    parser.description = inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].strip()
    try:
        namespace = parser.parse_args(argv)
    except SystemExit as exit_:
        if exit_.code:
            raise
        return None
    except argparse.ArgumentError as error:
        raise UsageError(_explain(error, options, prog)) from None
    values = vars(namespace) if plain else {k: v for k, v in vars(namespace).items() if k != "config"}
    return _gather(function, options, values)


def read_options(function: Callable[..., Any], skip: frozenset[str] = frozenset()) -> list[Option]:
    """Return the options of a typed function (or dataclass), with dataclass parameters unfolded."""
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    texts = argument_help(function.__doc__ or "")
    parameters = inspect.signature(function).parameters
    factories = _factories(function)
    found: list[Option] = []
    for name, parameter in parameters.items():
        positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        if dataclasses.is_dataclass(hints[name]):
            fields = read_options(hints[name], skip=frozenset(parameters))
            found += [f._replace(owner=name, positional=f.positional and positional) for f in fields]
        elif name not in skip:
            default = factories[name]() if name in factories else parameter.default
            found.append(Option(name, hints[name], default, positional, texts.get(name, ""), None))
    return found


def _factories(function: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """The default factories of a dataclass's fields (its signature shows a private marker in their place)."""
    if not dataclasses.is_dataclass(function):
        return {}
    return {f.name: f.default_factory for f in dataclasses.fields(function) if callable(f.default_factory)}


def argument_help(doc: str) -> dict[str, str]:
    """Return the texts of a docstring's `Args:` section by parameter name."""
    _, _, section = inspect.cleandoc(doc).partition("\nArgs:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            texts[name] = text
        else:
            texts[name] += " " + line.strip()
    return texts


def _preset(function: Callable[..., Any], argv: list[str]) -> dict[str, Any]:
    module = sys.modules[function.__module__]
    hook = getattr(module, f"{function.__name__.rstrip('_')}_defaults", None)
    return hook(argv) if hook and not {"-h", "--help"} & set(argv) else {}


def _without_none(annotation: Any) -> Any:
    """`T | None` -> `T`; anything else as it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return annotation


def _element(annotation: Any) -> Any:
    """The element type of a list, else None."""
    inner = _without_none(annotation)
    return typing.get_args(inner)[0] if typing.get_origin(inner) is list else None


def _is_simple(option: Option) -> bool:
    inner = _without_none(option.type)
    return (_element(inner) or inner) in SIMPLE or typing.get_origin(inner) is typing.Literal


def _plain_parser(options: list[Option], defaults: dict[str, Any]) -> argparse.ArgumentParser:
    """An argparse parser: simple types, no configuration files; it starts in a tenth of the other's time."""
    parser = _Parser(exit_on_error=False, allow_abbrev=False)
    for option in options:
        kind = _without_none(option.type)
        settings: dict[str, Any] = {}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is typing.Literal:
            settings["choices"] = typing.get_args(kind)
        else:
            settings["type"] = _element(kind) or kind
        _add(parser, option, defaults, settings, show_default=True)
    parser.add_argument("--config", metavar="FILE", help="read options from a YAML file")
    parser.add_argument("--print_config", action="store_true", help="print the options as YAML and stop")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise argparse.ArgumentError(None, message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found = super().parse_args(args, namespace)
        del found.config, found.print_config
        return found


def _full_parser(options: list[Option], defaults: dict[str, Any], argv: list[str]) -> tuple[Any, list[str]]:
    """A jsonargparse parser and the arguments rewritten for it.

    A configuration file cannot fill a positional argument, so except in --help each is turned into an option.
    """
    from jsonargparse import ActionYesNo, ArgumentParser

    if not {"-h", "--help"} & set(argv):
        argv = _name_positionals(options, argv)
        options = [o._replace(positional=False) for o in options]
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", metavar="FILE", help="read options from a YAML file")
    for option in options:
        settings: dict[str, Any] = {"type": _element(option.type) or option.type}
        if option.type is bool:
            settings = {"action": ActionYesNo(yes_prefix="", no_prefix="no-")}
        _add(parser, option, defaults, settings, show_default=False)
    return parser, argv


def _name_positionals(options: list[Option], argv: list[str]) -> list[str]:
    """`small --lr 1` -> `--model=small --lr 1`."""
    arity = {"--print_config": 0} | {f"--{o.name}": 0 if o.type is bool else -1 for o in options if _takes_any(o)}
    waiting = [o for o in options if o.positional]
    out: list[str] = []
    room = 0  # values that the option before may still take; -1: any number
    for token in argv:
        if token.startswith("--"):
            name = token.replace("-", "_").replace("__", "--", 1)
            room = 0 if "=" in token or token.startswith("--no-") else arity.get(name, 1)
            out.append(token)
        elif room or not waiting:
            room -= room > 0
            out.append(token)
        else:
            option = waiting.pop(0)
            is_list = _element(option.type) is not None
            room = -1 if is_list else 0
            out += [f"--{option.name}", token] if is_list else [f"--{option.name}={token}"]
    return out


def _takes_any(option: Option) -> bool:
    return option.type is bool or _element(option.type) is not None


def _add(
    parser: Any, option: Option, defaults: dict[str, Any], settings: dict[str, Any], *, show_default: bool
) -> None:
    default = defaults.get(option.name, option.default)
    required = default is inspect.Parameter.empty
    text = option.help.replace("%", "%%")
    is_list = _element(option.type) is not None
    if is_list:
        settings["nargs"] = "+" if required else "*"
    if option.positional:
        names = [option.name]
        if not is_list and not required:
            settings["nargs"] = "?"
    else:
        dashed = f"--{option.name.replace('_', '-')}"
        names = [dashed] if dashed == f"--{option.name}" else [dashed, f"--{option.name}"]
        if required:
            settings["required"] = True
    if not required:
        settings["default"] = default
        if show_default and default is not None and option.type is not bool:
            text += f" (default: {default})"
    if option.name in ("images", "paths") and option.positional:
        settings["metavar"] = option.name[:-1].upper()
    parser.add_argument(*names, help=text, **settings)


def _explain(error: argparse.ArgumentError, options: list[Option], prog: str) -> str:
    """The parser's message, with near names for misspelt options."""
    message = str(error)
    known = [f"--{o.name.replace('_', '-')}" for o in options] + ["--config", "--print_config", "--help"]
    marker = "unrecognized arguments:"
    if marker in message:
        hints = []
        for token in message.split(marker)[1].split():
            close = near(token.split("=")[0], known) if token.startswith("-") else []
            if close:
                hints.append(f"did you mean {' or '.join(close)}?")
        message = f"{message.strip()}" + (f"; {' '.join(hints)}" if hints else "")
    return f"{message}\n(`{prog} --help` shows the options)"


def _gather(function: Callable[..., Any], options: list[Option], values: dict[str, Any]) -> dict[str, Any]:
    """Put dataclass fields back into their dataclasses."""
    hints = typing.get_type_hints(function)
    call: dict[str, Any] = {}
    owned: dict[str, dict[str, Any]] = {o.owner: {} for o in options if o.owner}
    for option in options:
        (owned[option.owner] if option.owner else call)[option.name] = values[option.name]
    for owner, fields in owned.items():
        call[owner] = hints[owner](**fields)
    return call


def peek(function: Callable[..., Any], argv: list[str], names: Sequence[str]) -> dict[str, Any]:
    """Return the named options as far as `argv`, or the configuration file it names, gives them; nothing is checked.

    For `<name>_defaults` hooks, which must know an option (a recipe) before the defaults of the others are settled.
    """
    tokens = _name_positionals(read_options(function), argv)
    given: dict[str, Any] = {}
    for token, after in zip(tokens, [*tokens[1:], ""], strict=False):
        key, equals, value = token.partition("=")
        name = key.removeprefix("--").replace("-", "_")
        if key.startswith("--") and name in (*names, "config"):
            given[name] = value if equals else after
    file = Path(given.pop("config", "") or ".")
    if file.is_file():
        import yaml

        with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):  # the parser will say what is wrong with it
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            given = {k: v for k, v in (content or {}).items() if k in names} | given
    return given
