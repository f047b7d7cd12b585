"""Recorded runs of ours: numbers that had to be trained or timed, with a pointer to the run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from excite.common.options import parse_pairs
from excite.errors import ExciteError


@dataclass(frozen=True)
class Record:
    """One measured number: of which network, on what (data set or "speed"), which column, the value and its spread.

    spread: of scores one sample standard deviation over the runs, of speeds half the distance between the quartiles of
    the rounds; n: how many runs or rounds; where: device or recipe in words; date: ISO; run: the file it comes from.
    """

    model: str
    options: str
    dataset: str
    column: str
    value: float
    unit: str
    spread: float | None
    n: int
    where: str
    date: str
    run: str

    @property
    def text(self) -> str:
        """The number in words, as `73.2 % ± 0.3 (3 runs, digits; results/x.json)`."""
        spread = f" ± {self.spread:.3g}" if self.spread is not None else ""
        times = f"{self.n} runs, " if self.n > 1 else ""
        return f"{self.value:.4g} {self.unit}{spread} ({times}{self.where}; {self.run})"


def load_records(folder: Path) -> list[Record]:
    """Read every `*.json` of a folder that has a list `records`; a folder that is not there has none.

    Raises ExciteError for a file that is not JSON or a record that lacks a field.
    """
    records: list[Record] = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ExciteError(f"{file}: not readable as JSON: {error}") from error
        for item in content.get("records", []) if isinstance(content, dict) else []:
            try:
                records.append(Record(**{"options": "", "spread": None, "n": 1, **item, "run": file.name}))
            except TypeError as error:
                raise ExciteError(f"{file}: a record does not fit: {error}") from error
    return records


def network_key(model: str, options: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return what identifies a network: its name and those options that change it."""
    skipped = ("input", "pooling", "against", "rois", "mask_rois", "stride", "num_classes", "frozen_stages")
    values = parse_pairs(options.split())
    return model, frozenset((k, str(v)) for k, v in values.items() if k not in skipped)


def find_record(records: Sequence[Record], model: str, options: str, dataset: str, column: str) -> Record | None:
    """Return the latest record for a published cell, or None."""
    key = network_key(model, options)
    fits = [
        r for r in records if r.dataset == dataset and r.column == column and network_key(r.model, r.options) == key
    ]
    return max(fits, key=lambda r: r.date, default=None)
