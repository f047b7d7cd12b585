"""From what people type to networks: sizes, builders, accuracies."""

import re
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from excite.common.checks import LARGEST
from excite.common.options import Option, parse_value
from excite.errors import UsageError


def parse_size(text: str) -> int | tuple[int, ...]:
    """Read the size of an input: "224", "800x1280" (height x width), or more sides for other dimensions ("8x64x64").

    Raises UsageError for anything else and for sides below 1.
    """
    if not re.fullmatch(r"-?\d+([x,×]-?\d+)*", text.strip().lower()):
        raise UsageError(f"size {text!r} is none; expected a side as 224, or HEIGHTxWIDTH as 800x1280")
    sides = tuple(int(s) for s in re.split(r"[x,×]", text.strip().lower()))
    if max(sides) > LARGEST:
        raise UsageError(f"size {text!r}: no side may have more than {LARGEST} pixels")
    if min(sides) < 1:
        raise UsageError(f"size {text!r}: every side must be at least 1 pixel")
    return sides[0] if len(sides) == 1 else sides


def opener(path: str, model: str | None = None) -> Callable[[], nn.Module]:
    """Return a function that opens a checkpoint; model: build this network instead of the one that it names."""

    def build() -> nn.Module:
        from excite.checkpoints.importing import open_classifier

        return open_classifier(path, model)[0]

    return build


def channels_of(paths: Sequence[str], model: str | None = None) -> int:
    """Return the channels that the networks of checkpoints and exported files take; 3 where there are none.

    model: as in `opener`. Raises UsageError where they differ.
    """
    from excite.export import open_exported
    from excite.measure.bench.variants import is_exported
    from excite.measure.profile import build_named
    from excite.models import spec_of

    channels: dict[int, str] = {}
    for path in paths:
        spec = open_exported(path).card if is_exported(path) else spec_of(build_named(opener(path, model), path))
        channels.setdefault(spec.in_channels, path)
    if len(channels) > 1:
        (one, first), (other, second) = list(channels.items())[:2]
        raise UsageError(
            f"{first} takes {one} channels, {second} {other}; all are measured on the same input: measure them apart"
        )
    return next(iter(channels), 3)


def builder(
    name: str,
    options: Mapping[str, Option],
    num_classes: int,
    in_channels: int,
    reports: dict[str, object] | None = None,
    **more: Option,
) -> Callable[[], nn.Module]:
    """Return a function that builds the network `name` with these options.

    reports: where given, gets what `attach` did, by the network's name.
    """

    def build() -> nn.Module:
        from excite.models import NetworkSpec

        model = NetworkSpec(name, num_classes, in_channels, options, **more).build()
        if reports is not None and hasattr(model, "excite_attach_report"):
            reports[name] = model.excite_attach_report
        return model

    return build


def accuracies(models: Sequence[str], pairs: Sequence[str] | None) -> tuple[dict[str, float], str]:
    """Return accuracies in per cent by model name and where they come from.

    pairs: `NAME=PERCENT` pairs; without them the ImageNet top-1 of the READMEs for networks of these names.
    Raises UsageError for a pair that is none, a name that is not measured, or a number outside 0 to 100.
    """
    if pairs is None:
        from excite.measure.published import cells

        # The paper quotes its baselines from elsewhere; within a README all networks were trained by the same people.
        readmes = [c for c in cells() if not c.table.startswith("ecanet-")]
        top1 = [c for c in readmes if c.column == "Top-1" and c.convention == "imagenet" and c.model in models]
        return {c.model: c.value for c in reversed(top1)}, "ImageNet top-1 as published"
    values = {}
    for pair in pairs:
        name, sign, value = pair.rpartition("=")
        if not sign or name not in models or not isinstance(parse_value(value), int | float):
            raise UsageError(f"accuracy {pair!r} is not NAME=PERCENT of a measured model ({', '.join(models)})")
        if not 0 <= float(value) <= 100:
            raise UsageError(f"accuracy {pair!r}: per cent lie between 0 and 100")
        values[name] = float(value)
    return values, "as given"
