"""How many parameters attention adds to a network in the original code: exact, where printed digits show nothing."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from excite.measure.records import network_key


@dataclass(frozen=True)
class Original:
    """What the original code adds to the plain network: all parameters, those that never get a gradient, the file."""

    parameters: int
    unused: int
    source: str

    @property
    def used(self) -> int:
        """Parameters that take part."""
        return self.parameters - self.unused


@cache
def originals() -> dict[tuple[str, frozenset[tuple[str, str]]], Original]:
    """Return the counts by network (`records.network_key`)."""
    text = (files("excite.measure") / "originals.csv").read_text(encoding="utf-8")
    return {
        network_key(row["model"], row["options"]): Original(int(row["parameters"]), int(row["unused"]), row["source"])
        for row in csv.DictReader(text.splitlines())
    }


def find_original(model: str, options: str) -> Original | None:
    """Return the original's count for a published cell's network, or None where no code of the authors builds it."""
    return originals().get(network_key(model, options))
