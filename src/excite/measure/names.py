"""From what people type to networks: sizes, options, builders."""

import json
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


def attach_settings(method: str | None, sites: str | None, options: Sequence[str] | None) -> dict[str, Any]:
    """Return what `create_model` wants to know of the method to attach.

    options: `KEY=VALUE` pairs, or one JSON object ('{"kernel_size": "3,5,5,7"}'). Raises UsageError for neither.
    """
    if options and options[0].lstrip().startswith("{"):
        try:
            values = dict(json.loads(" ".join(options)))
        except json.JSONDecodeError as error:
            raise UsageError(f"attach options {' '.join(options)!r} are no JSON object: {error}") from None
    else:
        values = parse_options(options or ())
    return {"attach": method, "attach_sites": sites, "attach_options": values}


def options_of(name: str, models: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Return the options meant for the network `name`: all without a model's name before them, and its own.

    `MODEL.KEY=VALUE` is for one of `models` alone. Raises UsageError where MODEL is none of them.
    """
    found = []
    for pair in pairs or ():
        key = pair.partition("=")[0]
        owner = next((m for m in sorted(models, key=len, reverse=True) if pair.startswith(m + ".")), None)
        if owner is None and "." in key:
            raise UsageError(f"option {pair!r}: {key.rpartition('.')[0]!r} is none of the models {', '.join(models)}")
        if owner in (None, name):
            found.append(pair if owner is None else pair[len(owner) + 1 :])
    return found


def builder(
    name: str,
    option: Sequence[str],
    num_classes: int,
    in_channels: int,
    reports: dict[str, Any] | None = None,
    **more: Any,
) -> Callable[[], nn.Module]:
    """Return a function that builds the network `name` with the options given as `KEY=VALUE`.

    reports: where given, gets what `attach` did, by the network's name.
    """
    options = parse_options(option)

    def build() -> nn.Module:
        from excite.models import create_model

        model = create_model(name, num_classes=num_classes, in_channels=in_channels, **more, **options)
        if reports is not None and hasattr(model, "excite_attach_report"):
            reports[name] = model.excite_attach_report
        return model

    return build


def accuracies(models: Sequence[str], given: Sequence[str] | None) -> tuple[dict[str, float], str]:
    """Return accuracies in per cent by model name and where they come from.

    given: `NAME=PERCENT` pairs; without them the papers' ImageNet top-1 of networks of these names.
    Raises UsageError for a pair that is none, a name that is not measured, or a number outside 0 to 100.
    """
    if given is None:
        from excite.measure.published import cells

        top1 = [c for c in cells() if c.column == "Top-1" and c.convention == "imagenet" and c.model in models]
        return {c.model: c.value for c in reversed(top1)}, "ImageNet top-1 as published"
    found = {}
    for pair in given:
        name, sign, value = pair.rpartition("=")
        if not sign or name not in models or not isinstance(_value(value), int | float):
            raise UsageError(f"accuracy {pair!r} is not NAME=PERCENT of a measured model ({', '.join(models)})")
        if not 0 <= float(value) <= 100:
            raise UsageError(f"accuracy {pair!r}: per cent lie between 0 and 100")
        found[name] = float(value)
    return found, "as given"
