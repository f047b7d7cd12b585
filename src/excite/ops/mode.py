"""Which form of the residual tail runs: the plain one, the fused one, or whichever is known to pay."""

from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType

from excite.errors import unknown

MODES = ("auto", "fused", "reference")
_mode: ContextVar[str] = ContextVar("excite_ops_mode", default="auto")


class use(AbstractContextManager["use"]):  # noqa: N801 - reads as a function, `ops.use("fused")`
    """Choose the form of `residual_tail` from here on; as a context manager, for the block only.

    "reference": the modules one after another. "fused": the fused form wherever it is exact (see `why_not`).
    "auto": the fused form where it is exact and was measured to pay. Holds for the current thread or task.
    Raises UsageError for another word.
    """

    def __init__(self, mode: str) -> None:
        if mode not in MODES:
            raise unknown("ops mode", mode, MODES)
        self._token: Token[str] | None = _mode.set(mode)

    def __enter__(self) -> "use":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _mode.reset(self._token)
            self._token = None


def mode() -> str:
    """Return the mode in force: "auto", "fused" or "reference"."""
    return _mode.get()
