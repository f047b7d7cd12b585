"""Checks of what users give: the options' types and ranges, and the maps' shapes. One room, one wording.

A build function says in its annotations what each option must be (`reduction: Positive = 16`); `check_options` holds
the given values against them. No torch is imported here.
"""

import inspect
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from excite.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from excite.types import FeatureMap

# Any: annotations are objects of many classes.


@dataclass(frozen=True)
class Rule:
    """What a value must be beyond its type. text: in words, for errors; holds: the test, of a value of that type."""

    text: str
    holds: Callable[[Any], bool]


MOST = float(2**100)  # what float32 and bfloat16 hold

Positive = Annotated[int, Rule("a positive integer", lambda v: v >= 1)]
Count = Annotated[int, Rule("an integer of at least 0", lambda v: v >= 0)]
Odd = Annotated[int, Rule("a positive odd integer", lambda v: v >= 1 and v % 2 == 1)]
Number = Annotated[float, Rule("a finite number", lambda v: abs(v) <= MOST)]
PositiveNumber = Annotated[float, Rule("a positive finite number", lambda v: 0 < v <= MOST)]
Dims = Literal[1, 2, 3]
Integers = Positive | Sequence[Positive] | str
Odds = Odd | Sequence[Odd] | str
"""Integers as a list, or as text such as `1,4` or `1/4`; how many and what a lone one means: see `integers`."""

LARGEST = 2**20
"""No layer is wider, no kernel and no map larger: more is a slip of the pen that would only end in a full memory."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200  # characters; lists and mappings show six and four entries, six levels deep

_WORDS = {int: "an integer", float: "a number", bool: "True or False", str: "text", NoneType: "None"}


def fits(value: object, annotation: Any) -> bool:
    """Return whether a value is what an annotation says; True and False are no numbers here, integers are floats."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin is Annotated:
        return fits(value, arguments[0]) and all(r.holds(value) for r in arguments[1:] if isinstance(r, Rule))
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (Union, UnionType):
        return any(fits(value, alternative) for alternative in arguments)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(fits(v, arguments[0]) for v in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    kind = origin or annotation
    return not isinstance(kind, type) or isinstance(value, kind)


def describe(annotation: Any) -> str:
    """Return in words what an annotation allows, such as `a positive integer or None`."""
    words = list(dict.fromkeys(_alternatives(annotation)))
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _alternatives(annotation: Any) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return [r.text for r in arguments[1:] if isinstance(r, Rule)] or _alternatives(arguments[0])
    if origin is Literal:
        return [repr(choice) for choice in arguments]
    if origin in (Union, UnionType):
        return [words for alternative in arguments for words in _alternatives(alternative)]
    if origin is Sequence:
        return [f"a list of {re.sub('^an? ', '', words)}s" for words in _alternatives(arguments[0])]
    return [_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))]


def check(owner: str, name: str, value: object, annotation: Any) -> None:
    """Raise UsageError unless a value is what an annotation says; the text names owner, option, value and remedy."""
    if not fits(value, annotation):
        limit = f" of at most {LARGEST}" if isinstance(value, int) and abs(value) > LARGEST else ""
        raise UsageError(f"{owner}: {name}={shown(value)}; it must be {describe(annotation)}{limit}")


def shown(value: object) -> str:
    """Return a value as one short line of text, however large or nested it is."""
    try:
        text = " ".join(_SHORT.repr(value).split())
    except ValueError:  # an integer of thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


@lru_cache
def annotations(build: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations of the parameters of a function or class, rules included."""
    while isinstance(build, partial):
        build = build.func
    if isinstance(build, type):
        build = build.__init__  # type: ignore[misc]  # the class's own, of which only the signature is read
    elif not inspect.isroutine(build):
        build = type(build).__call__
    return get_type_hints(build, include_extras=True)


def check_options(owner: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise UsageError unless every option is what `build` says of it."""
    known = annotations(build)
    for name, value in options.items():
        check(owner, name, value, known.get(name, Any))


def check_divides(owner: str, name: str, value: int, whole: int, of: str) -> None:
    """Raise UsageError unless the positive integer `value` divides `whole`; names near divisors."""
    if whole % value:
        divisors = [d for d in range(1, whole + 1) if whole % d == 0]
        near = sorted(sorted(divisors, key=lambda d: abs(d - value))[:3])
        raise UsageError(f"{owner}: {name}={value} does not divide {of} ({whole}); near values that do: {near}")


def parts(values: object) -> list[Any]:
    """Return the entries of a list, or of text such as `1,4` or `1/4`; anything else is one entry.

    In a network commas (and lists) hold one value per stage, so lists in options are written with slashes there.
    """
    if isinstance(values, str):
        return [part.strip() for part in re.split("[,/]", values)]
    return list(values) if isinstance(values, list | tuple) else [values]


def integers(owner: str, name: str, values: object, count: int, kind: Any = Positive) -> tuple[int, ...]:
    """Return `values`, a list or text such as `1,4,8,16`, as `count` integers of this kind. Raises UsageError."""
    try:
        numbers = tuple(int(v) if isinstance(v, str) else v for v in parts(values))
    except ValueError:
        raise UsageError(f"{owner}: {name}={shown(values)} is not a list of integers") from None
    if len(numbers) != count:
        remedy = "/".join(str(v) for v in range(1, count + 1))
        raise UsageError(
            f"{owner}: {name} needs {count} integers, got {len(numbers)}; in a network, where commas separate stages, "
            f"write them as {remedy}"
        )
    for number in numbers:
        check(owner, name, number, kind)
    return numbers


def check_map(owner: str, x: "FeatureMap", channels: int, dims: int | None = None) -> None:
    """Raise UsageError unless `x` is `[n channels *space]` with `dims` space axes (None: at least one)."""
    if x.dim() < 3 or x.shape[1] != channels or (dims is not None and x.dim() != dims + 2):
        space = "*space" if dims is None else {1: "l", 2: "h w", 3: "d h w"}[dims]
        build = dims is not None and x.dim() in (3, 4, 5) and x.dim() != dims + 2
        remedy = f"; build it with dims={x.dim() - 2} for such maps" if build else ""
        raise UsageError(
            f"{owner} over {channels} channels got a map of shape {tuple(x.shape)}; expected [n {channels} {space}]"
            f"{remedy}"
        )


def check_batch(owner: str, module: "nn.Module", x: "torch.Tensor") -> None:
    """Raise UsageError in train mode for a batch of one: a batch norm over `[n c]` has nothing to average."""
    if module.training and x.shape[0] == 1:
        raise UsageError(
            f"{owner} normalises its descriptor over the batch and needs at least 2 samples in train mode; "
            "enlarge the batch, drop the last partial one, or call .eval()"
        )
