"""From what people type to networks: sizes, options, builders."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from excite.errors import UsageError


def parse_size(text: str) -> int | tuple[int, ...]:
    """Read an input size: "224", "800x1280" (height x width), or more sides for other dimensions ("8x64x64").

    Raises UsageError for anything else and for sides below 1.
    """
    if not re.fullmatch(r"-?\d+([x,×]-?\d+)*", text.strip().lower()):
        raise UsageError(f"input size {text!r} is not a size; expected a side as 224, or HEIGHTxWIDTH as 800x1280")
    sides = tuple(int(s) for s in re.split(r"[x,×]", text.strip().lower()))
    if min(sides) < 1:
        raise UsageError(f"input size {text!r}: every side must be at least 1 pixel")
    return sides[0] if len(sides) == 1 else sides


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` pairs; values are numbers, true, false, none or text ("3,5,5,7" stays text)."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.isidentifier():
            raise UsageError(f"option {pair!r} is not KEY=VALUE, as kernel_size=3,5,5,7")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def builder(
    name: str, option: Sequence[str], num_classes: int, in_channels: int, **more: Any
) -> Callable[[], nn.Module]:
    """Return a function that builds the network `name` with the options given as `KEY=VALUE`."""
    options = parse_options(option)

    def build() -> nn.Module:
        from excite.models import create_model

        return create_model(name, num_classes=num_classes, in_channels=in_channels, **more, **options)

    return build
