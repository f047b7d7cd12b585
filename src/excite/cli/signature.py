"""A typed function as the command line sees it: its options, and what its docstring says of them."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from excite.common.checks import describe
from excite.common.options import flag

# Any: annotations are objects of many classes, defaults of every kind.

REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Option:
    """One parameter. default: REQUIRED where the user must give it; owner: the parameter whose dataclass holds it."""

    name: str
    type: Any
    default: Any
    positional: bool
    help: str
    owner: str | None = None

    @property
    def flag(self) -> str:
        """Its spelling, as --batch-size; a positional's is its metavar."""
        return flag(self.name)

    @property
    def kind(self) -> Any:
        """The type without None."""
        if typing.get_origin(self.type) in (typing.Union, types.UnionType):
            rest = [a for a in typing.get_args(self.type) if a is not type(None)]
            return rest[0] if len(rest) == 1 else self.type
        return self.type

    @property
    def element(self) -> Any:
        """The type of a list's elements, else None."""
        return typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is list else None

    @property
    def is_mapping(self) -> bool:
        """Whether it is given as --options.NAME VALUE."""
        return typing.get_origin(self.kind) is dict

    @property
    def choices(self) -> tuple[Any, ...]:
        """The words that it takes, where it takes certain words only."""
        kind = self.element or self.kind
        return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()

    @property
    def expected(self) -> str:
        """What a value looks like, in words."""
        if self.choices:
            text = f"one of {', '.join(map(repr, self.choices))}"
        else:
            words = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
            text = words.get(self.element or self.kind, "text")
            if typing.get_origin(self.kind) in (typing.Union, types.UnionType):
                text = describe(self.kind)
            if self.name == "size" and self.kind is int:
                text = "one side in pixels (images are square here)"
        if self.is_mapping:
            return f"{self.flag}.NAME VALUE"
        return f"a list, each {text}" if self.element else text


def read_options(function: Callable[..., Any]) -> list[Option]:
    """Return the options of a typed function; a parameter whose type is a dataclass gives way to the fields."""
    return _read(function, frozenset())


def _read(function: Callable[..., Any], skip: frozenset[str]) -> list[Option]:
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    # A dataclass is explained by its own docstring and, for what it inherits, by those of its bases.
    docs = [c.__doc__ or "" for c in reversed(inspect.getmro(function))] if inspect.isclass(function) else []
    texts: dict[str, str] = {}
    for doc in docs or [function.__doc__ or ""]:
        texts |= argument_help(doc)
    parameters = inspect.signature(function).parameters
    factories: dict[str, Any] = {}
    if dataclasses.is_dataclass(function):
        factories = {f.name: f.default_factory for f in dataclasses.fields(function) if callable(f.default_factory)}
    options: list[Option] = []
    for name, parameter in parameters.items():
        positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        if dataclasses.is_dataclass(hints[name]):
            fields = _read(hints[name], frozenset(parameters))
            options += [dataclasses.replace(f, owner=name, positional=f.positional and positional) for f in fields]
        elif name not in skip:
            default = factories[name]() if name in factories else parameter.default
            options.append(Option(name, hints[name], default, positional, texts.get(name, "")))
    return options


def gather(function: Callable[..., Any], options: list[Option], values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments to call `function` with: fields are put back into their dataclasses."""
    hints = typing.get_type_hints(function)
    call: dict[str, Any] = {}
    owned: dict[str, dict[str, Any]] = {o.owner: {} for o in options if o.owner}
    for option in options:
        (owned[option.owner] if option.owner else call)[option.name] = values[option.name]
    return call | {owner: hints[owner](**fields) for owner, fields in owned.items()}


def section(doc: str, title: str) -> list[str]:
    """Return the lines of a docstring's section ("" is the text before the first), without their indent."""
    lines: list[str] = []
    current = ""
    for line in inspect.cleandoc(doc).splitlines():
        if line in ("Args:", "Examples:"):
            current = line[:-1]
        elif current == title:
            lines.append(line.removeprefix("    ") if title else line)
    return inspect.cleandoc("\n".join(lines)).splitlines()


def argument_help(doc: str) -> dict[str, str]:
    """Return the texts of a docstring's `Args:` section by parameter name."""
    texts: dict[str, str] = {}
    name = ""
    for line in section(doc, "Args"):
        if line.startswith(" "):
            texts[name] += " " + line.strip()
        elif line:
            name, _, text = line.partition(": ")
            texts[name] = text
    return texts


def examples(function: Callable[..., Any]) -> list[str]:
    """Return the command lines of a docstring's `Examples:` section."""
    return [line for line in section(function.__doc__ or "", "Examples") if line]
