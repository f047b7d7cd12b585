"""Errors that users see: each says what was wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable


class ExciteError(Exception):
    """A failure that is not a bug: the command line prints its message and leaves with `exit_code`.

    option: one that passes over such a failure, for those who have it: commands differ in their options.
    """

    exit_code = 1
    option = ""

    def offer(self, words: str) -> None:
        """Add to the message what else can be done."""
        self.args = (f"{self}, or {words}",)


class UsageError(ExciteError):
    """Wrong usage: a name, option or combination that cannot work. The command line leaves with 2."""

    exit_code = 2


def near(name: object, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that look most like `name`, best first; capitals count for nothing."""
    names = {one.lower(): one for one in known}
    return [names[one] for one in difflib.get_close_matches(str(name).lower(), list(names), n=most, cutoff=0.55)]


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown `name`, with near names or, where the list is short, all of them."""
    names = sorted(known)
    close = near(name, names)
    if close:
        remedy = f"did you mean {' or '.join(repr(n) for n in close)}?"
    elif len(names) <= 24:
        remedy = f"known: {', '.join(names)}" if names else "none is known here"
    else:
        remedy = f"{len(names)} are known; `excite list` shows them"
    return UsageError(f"unknown {kind} {name!r}; {remedy}")
