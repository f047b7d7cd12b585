"""What a layout is: how to recognise a family of files, and what its keys are called here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from excite.common.options import Option

State = Mapping[str, torch.Tensor]
Rule = tuple[str, str]


@dataclass(frozen=True)
class Layout:
    """One family of files.

    name: for people; mark: pattern that some key of such a file matches in full, and of no other family's; rules:
    (pattern, replacement) pairs, the first that matches a key's start renames it, the others stay as they are; ignore:
    (pattern, reason) of entries that are rightly left out; method: the attention's method ("" where the weights tell);
    options: what the weights cannot tell, from the renamed state or the original one; note: for the report.
    """

    name: str
    mark: str
    rules: Sequence[Rule] = ()
    ignore: Sequence[tuple[str, str]] = ()
    method: str = ""
    options: Callable[[State], dict[str, Option]] = field(default=lambda state: {})
    note: str = ""

    def recognises(self, state: State) -> bool:
        """Tell whether `state` is of this family."""
        mark = re.compile(self.mark)
        return any(mark.fullmatch(key) for key in state)

    def reason_to_ignore(self, key: str) -> str | None:
        """Return why a key is left out, or None."""
        return next((reason for pattern, reason in self.ignore if re.fullmatch(pattern, key)), None)

    def rename(self, key: str) -> str:
        """Return what a key of this family is called in our networks."""
        for pattern, replacement in self.rules:
            renamed, hits = re.subn(f"^{pattern}", replacement, key, count=1)
            if hits:
                return renamed
        return key

    def translate(self, state: State) -> tuple[dict[str, str], dict[str, str]]:
        """Return {our key: key in the file} and {key left out: reason}."""
        renamed: dict[str, str] = {}
        ignored: dict[str, str] = {}
        for key in state:
            reason = self.reason_to_ignore(key)
            if reason is None:
                renamed[self.rename(key)] = key
            else:
                ignored[key] = reason
        return renamed, ignored


BLOCK = r"(layer\d+\.\d+\.)"
"""Pattern of a residual block's prefix; `\\1` in the replacement."""
