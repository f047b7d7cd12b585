"""Profiles as text tables, JSON and CSV."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from excite.measure.profile import Profile, Row

MI, GI = 2**20, 2**30


def select_rows(profile: Profile, depth: int) -> list[Row]:
    """Return the breakdown down to `depth` (1: stages; -1: every layer, and nothing but layers)."""
    if depth < 0:
        return [r for r in profile.rows if r.leaf]
    return [r for r in profile.rows if 0 < r.depth <= depth]


def as_dict(profile: Profile, depth: int) -> dict[str, object]:
    """Return the profile as plain containers, with the breakdown down to `depth`."""
    values = asdict(profile)
    values["params_million"] = profile.params / 1e6
    values["params_mebi"] = profile.params / MI
    values["attention_share"] = profile.attention_params / profile.params if profile.params else 0.0
    values["macs_giga"] = {c: n / 1e9 for c, n in profile.macs.items()}
    values["macs_gibi"] = {c: n / GI for c, n in profile.macs.items()}
    values["rows"] = [asdict(r) for r in select_rows(profile, depth)]
    return values


def to_json(profiles: Sequence[Profile], depth: int) -> str:
    """Return JSON: one object per model."""
    return json.dumps({"models": [as_dict(p, depth) for p in profiles]}, indent=2)


def to_csv(profiles: Sequence[Profile], depth: int) -> str:
    """Return CSV: per model its total (an empty layer name) and the breakdown down to `depth`."""
    conventions = list(profiles[0].macs)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["model", "input", "layer", "kind", "output", "params", "attention_params", "activations"]
    writer.writerow(head + conventions)
    for profile in profiles:
        total = [r for r in profile.rows if r.depth == 0]
        for row in total + [r for r in select_rows(profile, depth) if r.depth > 0]:
            cells = [_shape(profile.input_shape), row.path, row.kind, _shape(row.output), row.params]
            counts = [row.counts[c] for c in conventions]
            writer.writerow([profile.name, *cells, row.attention_params, row.activations, *counts])
    return out.getvalue()


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _mega(n: float) -> str:
    return f"{n / 1e6:.3f}" if n >= 1e4 or n == 0 else f"{n / 1e6:.6f}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.4f} %)" if whole else str(part)


def totals_table(profiles: Sequence[Profile]) -> Table:
    """Return the table of parameters, activations and memory."""
    table = Table(
        title="Parameters, activations, memory (float32 unless the network says otherwise)", title_justify="left"
    )
    heads = ["model", "input", "params 10^6", "2^20", "trainable 10^6", "in attention", "activations 10^6"]
    for head in [*heads, "weights MB", "peak MB"]:
        table.add_column(head, justify="left" if head in ("model", "input") else "right")
    for p in profiles:
        table.add_row(
            p.name,
            _shape(p.input_shape),
            f"{p.params / 1e6:.3f}",
            f"{p.params / MI:.3f}",
            f"{p.trainable / 1e6:.3f}",
            _share(p.attention_params, p.params),
            f"{p.activations / 1e6:.3f}",
            f"{(p.weight_bytes + p.buffer_bytes) / 1e6:.1f}",
            f"{p.peak_bytes / 1e6:.1f}",
        )
    return table


def conventions_table(profiles: Sequence[Profile]) -> Table:
    """Return the table of multiply-accumulates, one row per model and convention."""
    table = Table(title="Multiply-accumulates by convention", title_justify="left")
    for head in ("model", "convention", "10^9", "2^30", "in attention", "params it sees 2^20"):
        table.add_column(head, justify="left" if head in ("model", "convention") else "right")
    for p in profiles:
        for convention, n in p.macs.items():
            seen = p.seen_params.get(convention)
            table.add_row(
                p.name,
                convention,
                f"{n / 1e9:.3f}",
                f"{n / GI:.3f}",
                f"{100 * p.attention_macs[convention] / n:.3f} %" if n else "-",
                "all" if seen in (None, p.params) else f"{seen / MI:.3f}" if seen is not None else "",
            )
    return table


def breakdown_table(profile: Profile, depth: int) -> Table:
    """Return the per-stage or per-layer table of one model."""
    table = Table(title=f"{profile.name}: {'layers' if depth < 0 else 'parts'}", title_justify="left")
    left = ("layer", "kind", "output")
    for head in (*left, "params 10^6", "attention", "activations 10^6", *(f"{c} 10^6" for c in profile.macs)):
        table.add_column(head, justify="left" if head in left else "right", no_wrap=head == "layer")
    for row in select_rows(profile, depth):
        name = "  " * (row.depth - 1) + row.path.rpartition(".")[2] if depth > 0 else row.path
        numbers = [_mega(row.params), f"{row.attention_params:,}", _mega(row.activations)]
        table.add_row(name, row.kind, _shape(row.output), *numbers, *(_mega(row.counts[c]) for c in profile.macs))
    return table


def show(profiles: Sequence[Profile], depth: int, console: Console) -> None:
    """Print the tables."""
    console.print(totals_table(profiles))
    console.print(conventions_table(profiles))
    if depth:
        for profile in profiles:
            console.print(breakdown_table(profile, depth))
    for profile in profiles:
        for note in profile.notes:
            console.print(f"{profile.name}: {note}")
