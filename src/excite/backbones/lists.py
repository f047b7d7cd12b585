"""Lists as options: whole numbers ("3,4,6,3"), and one value per stage."""

from collections.abc import Sequence

from excite.errors import UsageError
from excite.methods.base import stage_digits


def listed(value: object) -> object:
    """Return the list that a text with commas stands for ("3,5,5,7" is [3, 5, 5, 7]); anything else as it is."""
    if not isinstance(value, str) or "," not in value:
        return value
    entries = [entry.strip() for entry in value.split(",")]
    return [int(entry) if entry.removeprefix("-").isdecimal() else entry for entry in entries]


def whole_numbers(value: object, name: str, count: int, what: str = "stage") -> tuple[int, ...]:
    """Return `count` positive whole numbers, one per stage (or `what` there are); also from a text with commas.

    Raises UsageError that names the option.
    """
    entries = listed(value)
    numbers = tuple(entries) if isinstance(entries, Sequence) and not isinstance(entries, str) else ()
    if len(numbers) != count or not all(type(n) is int and n > 0 for n in numbers):
        example = ",".join(str(2**i) for i in range(count))
        raise UsageError(
            f'option {name}={value!r}; expected {count} positive whole numbers, one per {what}, such as "{example}"'
        )
    return numbers


def kernel_sizes(value: object, stages: int) -> object:
    """Return [3, 5, 5, 7] for the notation 3557 of ECA-Net's authors: one odd digit per stage; else the value itself.

    Only for three stages and more: 11 is a kernel size.
    """
    digits = stage_digits(value)
    if stages < 3 or digits is None:
        return value
    if len(digits) == stages:
        return list(digits)
    if isinstance(value, str):
        raise UsageError(f"option kernel_size={value!r} has {len(digits)} digits; this backbone has {stages} stages")
    return value


def per_stage(value: object, stage: int, stages: int, name: str) -> object:
    """Return the entry of `stage` where `value` is a list of one entry per stage ("3,5,5,7" too), else `value`.

    Raises UsageError for a list of another length.
    """
    entries = listed(kernel_sizes(value, stages) if name == "kernel_size" else value)
    if not isinstance(entries, list | tuple):
        return entries
    if len(entries) != stages:
        raise UsageError(
            f"option {name}={list(entries)!r} has {len(entries)} entries; this backbone has {stages} stages"
        )
    return entries[stage]
