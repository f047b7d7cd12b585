"""The tables as terminal text, Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from excite.common.tables import markdown_row
from excite.measure.published import SOURCES, TITLES, UNIT_NAMES
from excite.measure.tables import Verdict

# Any: cells of a JSON report.

HEADS = ("row", "column", "published", "computed", "plain", "convention", "network", "verdict")
INTRODUCTION = (
    "Made by `excite tables --format markdown`: parameters and multiply-accumulates are computed from our networks "
    "when the command runs, each by the convention of its table; a divisor of 2^20 or 2^30 stands beside it. "
    "*Reproduced* means that the computed value rounds to the printed digits. The column *plain* has the value of the "
    "same network without attention: where that gives the same digits, the cell says nothing about attention, and its "
    "parameters are counted exactly beside those of the original code, where the authors have code for it. Accuracies "
    "and speeds are as published, beside a recorded run of ours where there is one; ± is half the distance between the "
    "quartiles of a speed's rounds, of a score one sample standard deviation over its runs."
)
STYLES = {"reproduced": "green", "rounded twice": "yellow", "off": "yellow", "not reproducible": "red"}
STATES = ("reproduced", "rounded twice", "off", "not reproducible", "measured", "as published")


def convention_text(verdict: Verdict) -> str:
    """Return the cell's convention with its divisor, as "thop-2005 / 2^30"."""
    cell = verdict.cell
    divisor = UNIT_NAMES.get(cell.unit, "")
    name = {"speed": "speed", "": "-"}.get(cell.convention, cell.convention)
    if "pooling=functional" in cell.options:
        name += ", pooling in attention not seen"
    return f"{name} / {divisor}" if divisor else name


def network_text(verdict: Verdict) -> str:
    """Return which network of ours computes the cell."""
    options = [o for o in verdict.cell.options.split() if not o.startswith("pooling=")]
    return " ".join([verdict.cell.model, *options]) or "-"


def computed_text(verdict: Verdict) -> str:
    """Return the computed value with one digit more than printed, or the value of our run."""
    if verdict.record is not None:
        return f"{verdict.record.value:.4g}"
    if verdict.computed is None:
        return "-"
    return f"{verdict.computed:.{max(verdict.cell.digits + 1, 0)}f}"


def plain_text(verdict: Verdict) -> str:
    """Return the value of the same network without attention."""
    return "-" if verdict.plain is None else f"{verdict.plain:.{max(verdict.cell.digits + 1, 0)}f}"


def cells_of(verdict: Verdict) -> list[str]:
    """Return one line of a table."""
    cell = verdict.cell
    printed = cell.published + ("%" if cell.unit == "%" else "")
    text = verdict.text
    return [
        cell.row,
        cell.column,
        printed,
        computed_text(verdict),
        plain_text(verdict),
        convention_text(verdict),
        network_text(verdict),
        text,
    ]


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many cells have each verdict."""
    return {s: sum(v.state == s for v in verdicts) for s in STATES}


def blind(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the reproduced cells whose digits a network without attention gives too."""
    return [v for v in verdicts if v.state == "reproduced" and not v.discriminates]


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return the tally as sentences."""
    counts = tally(verdicts)
    computed = sum(counts[s] for s in STATES[:3])
    text = f"{computed} cells computed: {counts['reproduced']} reproduced, {counts['rounded twice']} rounded twice, "
    text += f"{counts['off']} off; {counts['not reproducible']} not reproducible"
    if counts["measured"] + counts["as published"]:
        text += (
            f"; {counts['as published']} accuracies and speeds as published, {counts['measured']} beside a run of ours"
        )
    unseen = blind(verdicts)
    if unseen:
        exact = sum(v.exact is not None for v in unseen)
        text += (
            f". Of those reproduced, {len(unseen)} would be so without attention; "
            f"{exact} of them agree with the original code in attention's exact number of parameters"
        )
    return text + "."


def by_table(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Group the verdicts by table, in order."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.cell.table, []).append(verdict)
    return groups


def sources(verdicts: Sequence[Verdict]) -> str:
    """Return where the printed numbers come from."""
    return "; ".join(SOURCES[s] for s in dict.fromkeys(v.cell.source for v in verdicts))


def to_rich(verdicts: Sequence[Verdict]) -> list[Table]:
    """Return one terminal table per published table."""
    made = []
    for name, group in by_table(verdicts).items():
        table = Table(
            title=f"{name}: {TITLES[name]}", caption=summary(group), title_justify="left", caption_justify="left"
        )
        for head in HEADS:
            table.add_column(head, justify="right" if head in ("published", "computed", "plain") else "left")
        for verdict in group:
            table.add_row(*cells_of(verdict), style=STYLES.get(verdict.state, ""))
        made.append(table)
    return made


def to_markdown(verdicts: Sequence[Verdict]) -> str:
    """Return Markdown: a page with a section per table."""
    lines = ["# The papers' tables, published beside computed", "", INTRODUCTION, "", summary(verdicts), ""]
    for name, group in by_table(verdicts).items():
        lines += [
            f"## {TITLES[name]}",
            "",
            f"`excite tables {name}`. Printed in: {sources(group)}.",
            "",
            summary(group),
            "",
        ]
        lines += ["| " + " | ".join(HEADS) + " |", "|---|---|---:|---:|---:|---|---|---|"]
        lines += [markdown_row(cells_of(v)) for v in group]
        lines.append("")
    return "\n".join(lines)


def to_csv(verdicts: Sequence[Verdict]) -> str:
    """Return CSV, one line per cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["table", *HEADS[:5], "unit", "convention", "model", "options", "state", "discriminates",
         "attention_params", "original_attention_params", "verdict", "source"]
    )  # fmt: skip
    for v in verdicts:
        c = v.cell
        value = "" if v.computed is None else repr(v.computed)
        if v.record is not None:
            value = repr(v.record.value)
        plain = "" if v.plain is None else repr(v.plain)
        head = [c.table, c.row, c.column, c.published, value, plain, c.unit, c.convention]
        exact = ["", ""] if v.exact is None else [v.exact.ours, v.exact.original.used]
        tells = "" if v.plain is None else str(v.discriminates).lower()
        writer.writerow([*head, c.model, c.options, v.state, tells, *exact, v.text, SOURCES[c.source]])
    return out.getvalue()


def to_dict(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the tally and every cell as plain values."""
    cells: list[dict[str, Any]] = []
    for v in verdicts:
        record = asdict(v.record) if v.record is not None else None
        exact = None if v.exact is None else {"ours": v.exact.ours, "original": asdict(v.exact.original)}
        values = {"computed": v.computed, "plain": v.plain, "discriminates": v.discriminates, "exact": exact}
        cells.append({**asdict(v.cell), **values, "state": v.state, "verdict": v.text, "record": record})
    return {"tally": tally(verdicts), "blind": len(blind(verdicts)), "cells": cells}
