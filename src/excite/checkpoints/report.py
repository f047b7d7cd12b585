"""What a transfer of weights did, entry by entry."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from excite.common.options import Option
from excite.common.tables import printable

MOST_LINES = 8


@dataclass
class TransferReport:
    """The account of one transfer.

    loaded: model key -> key in the file; fresh: model keys that kept their initial values; ignored: keys of the file
    that found no use -> the reason; mismatched: model key -> (shape in the file, shape in the model), kept fresh.
    layout: what the file was recognised as; model, options: the network that was built (import only).
    """

    layout: str = ""
    model: str = ""
    options: dict[str, Option] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    elements: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every entry of the model came from the file."""
        return not self.fresh and not self.mismatched

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain containers."""
        return {
            "layout": self.layout,
            "model": self.model,
            "options": self.options,
            "complete": self.complete,
            "elements": self.elements,
            "loaded": self.loaded,
            "fresh": self.fresh,
            "ignored": self.ignored,
            "mismatched": {k: {"file": list(f), "model": list(m)} for k, (f, m) in self.mismatched.items()},
            "notes": self.notes,
        }

    def __str__(self) -> str:
        lines = []
        if self.layout:
            lines.append(f"recognised   {self.layout}")
        if self.model:
            chosen = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
            lines.append(f"network      {self.model}" + (f" ({chosen})" if chosen else ""))
        lines.append(f"loaded       {len(self.loaded)} entries, {self.elements:,} numbers")
        lines += _block("fresh", "initialised fresh", _grouped(self.fresh))
        lines += _block(
            "mismatched",
            "kept fresh, shapes differ",
            [f"{k}: {list(f)} in the file, {list(m)} in the model" for k, (f, m) in self.mismatched.items()],
        )
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.ignored.items():
            by_reason.setdefault(reason, []).append(key)
        for reason, keys in by_reason.items():
            lines += _block("ignored", reason, _grouped(keys), len(keys))
        lines += [f"note         {note}" for note in self.notes]
        return "\n".join(map(printable, lines))


def _block(title: str, about: str, entries: list[str], count: int | None = None) -> list[str]:
    if not entries:
        return []
    total = (
        count if count is not None else sum(int(e.rsplit("(", 1)[1][:-1]) if e.endswith(")") else 1 for e in entries)
    )
    shown = [f"             {e}" for e in entries[:MOST_LINES]]
    rest = len(entries) - MOST_LINES
    return [f"{title:<12} {total} entries, {about}:", *shown, *([f"             and {rest} more"] if rest > 0 else [])]


def _grouped(keys: Iterable[str]) -> list[str]:
    """Return keys with their numbers as `*`, counted: `layer*.*.attention.gate.conv.weight (16)`."""
    counts = Counter(re.sub(r"\d+", "*", key) for key in keys)
    return [f"{key} ({n})" for key, n in counts.items()]
