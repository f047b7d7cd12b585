"""What a network says of its maps: their channels, how much smaller than the image they are, where they come from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from excite.backbones.lists import listed
from excite.errors import UsageError

# Any: timm's interface: numbers, names and lists by key.


class Level(NamedTuple):
    """A map: its channels, the image's side over its own, and the module that gives it."""

    channels: int
    reduction: int
    module: str


class FeatureInfo(list[dict[str, Any]]):  # the entries that timm reads: num_chs, reduction, module, index
    """The levels of a network, finest first, with the questions that timm's FeatureInfo answers.

    out_indices: the levels that are meant where a question names none.
    """

    def __init__(self, levels: Sequence[Level], out_indices: Sequence[int]) -> None:
        super().__init__(
            {"num_chs": level.channels, "reduction": level.reduction, "module": level.module, "index": i}
            for i, level in enumerate(levels)
        )
        self.out_indices = tuple(out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """Return an entry of one level, or of several."""
        if isinstance(idx, int):
            return self[idx][key]
        return [self[i][key] for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the channels of a level or of several."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return how much smaller than the image a level's map is, or those of several."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the module that gives a level's map, or those of several."""
        return self.get("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the entries of several levels, all of them or some keys."""
        levels = [self[i] for i in (self.out_indices if idx is None else idx)]
        return levels if keys is None else [{key: level[key] for key in keys} for level in levels]


def level_indices(value: object, count: int) -> tuple[int, ...]:
    """Return which of `count` levels are meant, ascending: None means all, a number the last ones, -1 the last.

    Raises UsageError for levels that there are not.
    """
    entries = listed(value)
    if entries is None:
        return tuple(range(count))
    if isinstance(entries, str) and entries.strip().isdecimal():
        entries = int(entries)
    if type(entries) is int and 1 <= entries <= count:
        return tuple(range(count - entries, count))
    numbers = list(entries) if isinstance(entries, Sequence) and not isinstance(entries, str) else []
    known = [n % count for n in numbers if type(n) is int and -count <= n < count]
    if not numbers or len(known) < len(numbers):
        raise UsageError(f"option out_indices={value!r}; this network has the levels 0 to {count - 1}")
    return tuple(sorted(set(known)))
