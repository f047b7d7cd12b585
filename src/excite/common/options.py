"""Which words on a command line, or in a table, are which options?"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from excite.errors import UsageError, near

# Any: annotations, which are objects of many classes, and defaults of every kind.

Option: TypeAlias = Any
"""An option's value. Anything can be written on a command line or in a file; whoever takes an option checks it."""

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# Values that earlier versions called otherwise; config files, recipes, runs and the command line may still do so.
FORMER_VALUES = {"precision": {"32": "fp32", "16": "fp16"}}
# Options that had another name, and how they are spelt today.
FORMER_OPTIONS = {
    "accelerator": "--device auto|cpu|cuda",
    "input_size": "--size",
    "output": "--out",
    "option": "--options.NAME VALUE",
    "set": "--train.NAME VALUE",
}
WORDS = {"true": True, "false": False, "none": None, "null": None}


def flag(name: str) -> str:
    """Return the spelling of an option: batch_size -> --batch-size."""
    return f"--{name.replace('_', '-')}"


def current(name: str, value: Any) -> Any:
    """Return an option's value (or each of a list) in today's words; a size of NxN is N."""
    if isinstance(value, list):
        return [current(name, one) for one in value]
    square = re.fullmatch(r"(\d+)[x×]\1", str(value)) if name == "size" else None
    return square[1] if square else FORMER_VALUES.get(name, {}).get(str(value), value)


def parse_value(text: str) -> Any:
    """Read one value: true, false, none, a number, a JSON list or object, else text ("3,5,5,7" stays text)."""
    word = text.strip()
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    if word[:1] in ("[", "{"):
        try:
            return json.loads(word)
        except ValueError:
            return text
    return text


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `["kernel_size=3,5,5,7", "lr=0.1"]`. Raises UsageError for what is not NAME=VALUE."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(f"option {pair!r} is not NAME=VALUE, as kernel_size=3,5,5,7")
        options[name] = parse_value(value)
    return options


def to_pairs(options: Mapping[str, Any]) -> list[str]:
    """Return options as `NAME=VALUE`: what `parse_pairs` reads."""
    return [
        f"{name}={str(value).lower() if value in (True, False, None) else value}" for name, value in options.items()
    ]


def options_of(name: str, names: Collection[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options meant for `name`: those for all (`{"stem": 3}`), then its own (`{name: {"stem": 3}}`).

    Raises UsageError where the options are for something that is not among `names`.
    """
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for path, value in _flat(options).items():
        owner = next((n for n in sorted(names, key=len, reverse=True) if path.startswith(n + ".")), None)
        if owner is None and "." in path:
            place = path.rpartition(".")[0]
            raise UsageError(f"option {path}: there is no {place!r} here, only {', '.join(names)}")
        if owner is None:
            shared[path] = value
        elif owner == name:
            own[path[len(owner) + 1 :]] = value
    return shared | own


def merge(*options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options with later ones over earlier ones, inside mappings too."""
    merged: dict[str, Any] = {}
    for layer in options:
        for name, value in (layer or {}).items():
            both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = merge(merged[name], value) if both else value
    return merged


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 3}}` -> `{"a.b": 3}`."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def check_names(subject: str, options: Collection[str], known: Collection[str]) -> None:
    """Raise UsageError with near names for the first option of `subject` that is not among the `known` ones."""
    for name in options:
        if name not in known:
            close = near(name, known)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(sorted(known)) or 'none'}"
            raise UsageError(f"{subject} has no option {name!r}; {remedy}")
