"""Which share of the training images a data spec holds out: `digits@val=0.1`."""

import re
from typing import NamedTuple

from excite.errors import UsageError

SUFFIX = re.compile(r"(?P<spec>.*)@(?P<parts>(?:val|test)=[^@,=]*(?:,(?:val|test)=[^@,=]*)*)", re.DOTALL)


class Cut(NamedTuple):
    """Shares of the training images to hold out, 0 to 1; None: as the source needs it."""

    val: float | None = None
    test: float | None = None

    def updated(self, val: float | None, test: float | None) -> "Cut":
        """Return this cut with the shares that are given."""
        return Cut(self.val if val is None else val, self.test if test is None else test)

    def written(self, spec: str) -> str:
        """Return a spec with this cut: `digits@val=0.1`."""
        parts = [f"{name}={value:g}" for name, value in self._asdict().items() if value is not None]
        return spec + ("@" + ",".join(parts) if parts else "")


def read_cut(spec: str) -> tuple[str, Cut]:
    """Return a spec without its cut, and the cut. Raises UsageError for one that cannot be."""
    match = SUFFIX.fullmatch(spec)
    if match is None:
        return spec, Cut()
    values: dict[str, float] = {}
    for part in match["parts"].split(","):
        name, _, text = part.partition("=")
        try:
            values[name] = float(text)
        except ValueError:
            raise UsageError(f"data spec {spec!r}: {name}={text} is no share of the images, as in @val=0.2") from None
    cut = Cut(**values)
    check_cut(cut)
    return match["spec"], cut


def check_cut(cut: Cut) -> None:
    """Raise UsageError for shares outside [0, 1), or that leave nothing to train on."""
    for name, value in cut._asdict().items():
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"--{name}-fraction must be in [0, 1), got {value:g}")
    if (cut.val or 0) + (cut.test or 0) >= 1:
        raise UsageError(f"--val-fraction {cut.val:g} and --test-fraction {cut.test:g} leave no images to train on")
