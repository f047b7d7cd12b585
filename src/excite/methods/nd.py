"""Layers for 1-D, 2-D and 3-D maps, and the check that every plain attention module makes of its input."""

import re
from typing import Any

import torch
from torch import nn

from excite.errors import UsageError
from excite.types import FeatureMap

_CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv(dims: int, inputs: int, outputs: int, kernel_size: int, **options: Any) -> nn.Module:
    """Return a convolution over `dims` space axes; odd kernels keep the size unless `padding` says otherwise."""
    options.setdefault("padding", options.get("dilation", 1) * (kernel_size - 1) // 2)
    return _CONVS[dims](inputs, outputs, kernel_size, **options)


def batch_norm(dims: int, channels: int, **options: Any) -> nn.Module:
    """Return a batch norm over `dims` space axes."""
    return _NORMS[dims](channels, **options)


def check_dims(method: str, dims: int, allowed: tuple[int, ...] = (1, 2, 3)) -> None:
    """Raise UsageError unless `dims` is a number of space axes that the method has."""
    if dims not in allowed:
        axes = " or ".join(str(d) for d in allowed)
        raise UsageError(f"{method}: dims={dims!r}; it works on maps with {axes} space axes")


def check_map(method: str, x: FeatureMap, channels: int, dims: int | None = None) -> None:
    """Raise UsageError unless `x` is `[n channels *space]` with `dims` space axes (None: at least one)."""
    if x.dim() < 3 or x.shape[1] != channels or (dims is not None and x.dim() != dims + 2):
        space = "*space" if dims is None else {1: "l", 2: "h w", 3: "d h w"}[dims]
        remedy = "" if dims is None or x.dim() == dims + 2 else f"; build it with dims={x.dim() - 2} for such maps"
        raise UsageError(
            f"{method} over {channels} channels got a map of shape {tuple(x.shape)}; expected [n {channels} {space}]"
            f"{remedy}"
        )


def check_divides(method: str, name: str, value: int, whole: int, of: str) -> None:
    """Raise UsageError unless the positive integer `value` divides `whole`; names near divisors."""
    if value < 1 or whole % value:
        divisors = [d for d in range(1, whole + 1) if whole % d == 0]
        near = sorted(sorted(divisors, key=lambda d: abs(d - value))[:3])
        raise UsageError(f"{method}: {name}={value} does not divide {of} ({whole}); near values that do: {near}")


def largest_divisor(whole: int, most: int) -> int:
    """Return the largest divisor of `whole` that is at most `most`."""
    return max(d for d in range(1, min(whole, most) + 1) if whole % d == 0)


def check_positive(method: str, **values: int) -> None:
    """Raise UsageError unless every value is an integer of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{method}: {name} must be a positive integer, got {value!r}")


def check_choice(method: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of the choices."""
    if value not in choices:
        raise UsageError(f"{method}: {name}={value!r}; it is one of {', '.join(map(repr, choices))}")


def check_batch(method: str, module: nn.Module, descriptor: torch.Tensor) -> None:
    """Raise UsageError in train mode for a batch of one: a batch norm over `[n c]` has nothing to average."""
    if module.training and descriptor.shape[0] == 1:
        raise UsageError(
            f"{method} normalises its descriptor over the batch and needs at least 2 samples in train mode; "
            "enlarge the batch, drop the last partial one, or call .eval()"
        )


def over_space(vector: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return `vector` `[... c]` with one trailing axis per space axis of `x`, ready to broadcast over the map."""
    return vector.reshape(vector.shape + (1,) * (x.dim() - 2))


def parts(values: Any) -> list[Any]:
    """Return the entries of a sequence, or of text such as `1,4` or `1/4`; a lone number is one entry.

    In a network commas (and sequences) hold one value per stage, so lists in options are written with slashes there.
    """
    if isinstance(values, str):
        return [part.strip() for part in re.split("[,/]", values)]
    return list(values) if isinstance(values, list | tuple) else [values]


def integers(method: str, name: str, values: Any, count: int) -> tuple[int, ...]:
    """Return `values` as `count` integers: a sequence, or text such as `1,4,8,16`. Raises UsageError otherwise."""
    try:
        numbers = tuple(int(v) for v in parts(values))
    except (TypeError, ValueError):
        raise UsageError(f"{method}: {name}={values!r} is not a list of integers") from None
    if len(numbers) != count:
        remedy = "/".join(str(v) for v in range(1, count + 1))
        raise UsageError(
            f"{method}: {name} needs {count} integers, got {len(numbers)}; in a network, where commas separate stages, "
            f"write them as {remedy}"
        )
    return numbers
