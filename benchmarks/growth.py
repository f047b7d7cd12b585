"""How the cost of attention grows with batch, side, channels and depth, and how near the tail is to memory's speed.

    python benchmarks/growth.py                    # every row that benchmarks/results/growth.json does not have yet
    python benchmarks/growth.py --fresh            # every row
    python benchmarks/growth.py --only "side"      # rows whose name begins so

A row is a training step of four networks, timed in turn; a ratio is the median of the rounds' own ratios to the plain
network of torch's modules. The traffic rows time the end of a block beside a copy of its map: what its counted reads
and writes would take at the copy's speed is the floor, the roof of a roofline picture. After each row JSON and picture
(docs/img/growth.png, or beside another `--out`) are written.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from excite.runtime import tune

TUNED = tune()

import torch  # noqa: E402 - after the threads are set
from record import DOCS_RESULTS, ORDER_STATISTICS, RATIO, add_out, ratio_cell, show, table, write  # noqa: E402
from torch import nn  # noqa: E402
from traffic import COUNTED, tail_calls  # noqa: E402

from excite import ops  # noqa: E402
from excite.common.plotting import colour, drawing, save  # noqa: E402
from excite.measure.bench.timing import Clock, CudaClock, interleave, median_interval, ratio  # noqa: E402
from excite.models import create_model  # noqa: E402


class Case(NamedTuple):
    """A network and its input."""

    backbone: str = "resnet50"
    batch: int = 16
    side: int = 112
    widths: tuple[int, ...] = (64, 128, 256, 512)


AXES: dict[str, dict[float, Case]] = {
    "batch": {b: Case(batch=b) for b in (1, 2, 4, 8, 16, 32)},
    "side": {s: Case(side=s) for s in (32, 64, 96, 128, 160, 224)},
    "channels": {w: Case(widths=(w, 2 * w, 4 * w, 8 * w)) for w in (16, 32, 64, 96)},
    "depth": {depth: Case(f"resnet{depth}") for depth in (18, 34, 50, 101)},
}
VARIANTS = {"none, ours": ("", "auto"), "eca, ours": ("eca_", "auto"), "eca, modules": ("eca_", "reference")}
GROWTH, TRAFFIC = "growth of the ratio", "traffic of the tail"
MAPS = ((16, 64, 14), (16, 256, 14), (16, 256, 28), (16, 512, 28), (16, 256, 56))
LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
COLUMNS = {
    GROWTH: {"axis and value": "", "plain": "{:.1f} ms", **dict.fromkeys(VARIANTS, RATIO)},
    TRAFFIC: {
        "map, layout, tail": "",
        "one map": "{:.2f} MB",
        "counted": "{:.1f} MB",
        "time": "{:.3f} ms",
        "share of a copy's speed": "{:.2f} [{:.2f}, {:.2f}]",
    },
}


def names() -> dict[str, tuple[str, Callable[[argparse.Namespace], list[list[Any]]]]]:
    """Return each row group's name with its table and what measures it."""
    known: dict[str, tuple[str, Callable[[argparse.Namespace], list[list[Any]]]]] = {}
    for axis, cases in AXES.items():
        for value, case in cases.items():
            name = f"{axis} {value:g}"
            known[name] = (GROWTH, lambda args, name=name, case=case: [grown(name, case, args)])  # type: ignore[misc]
    for shape in MAPS:
        for layout in LAYOUTS:
            name = f"{'x'.join(map(str, (*shape, shape[-1])))}, {layout}"
            known[name] = (TRAFFIC, lambda args, name=name, s=shape, lo=layout: moved(name, s, lo, args))  # type: ignore[misc]
    return known


def clock(device: str) -> Clock:
    return CudaClock() if device == "cuda" else Clock()


def step(network: nn.Module, mode: str, x: torch.Tensor) -> Callable[[], None]:
    """Return one training step: forward, loss, backward."""
    y = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)

    def call() -> None:
        network.zero_grad()
        with ops.use(mode):
            nn.functional.cross_entropy(network(x), y).backward()

    return call


def grown(name: str, case: Case, args: argparse.Namespace) -> list[Any]:
    """Time a training step of every variant of a case."""
    backbone, batch, side, widths = case
    if args.small:
        backbone, batch, side, widths = "resnet18", 2, 32, (8, 16, 16, 16)
    x = torch.randn(batch, 3, side, side, device=args.device).contiguous(memory_format=torch.channels_last)
    calls = {}
    for label, (prefix, mode) in {"plain": ("", "reference"), **VARIANTS}.items():
        torch.manual_seed(0)
        network = create_model(prefix + backbone, widths=widths).to(args.device, memory_format=torch.channels_last)
        calls[label] = step(network.train(), mode, x)
    timings = interleave(calls, args.rounds, warmup=2, min_time=args.min_time, clock=clock(args.device))
    plain = timings["plain"]
    return [name, round(1e3 * plain.median, 3), *(ratio_cell(ratio(timings[v], plain)) for v in VARIANTS)]


def moved(name: str, shape: tuple[int, int, int], layout: str, args: argparse.Namespace) -> list[list[Any]]:
    """Time every form of a tail, forward and backward, beside a copy of its map."""
    n, c, side = (2, 8, 6) if args.small else shape
    calls = tail_calls((n, c, side, side), LAYOUTS[layout], args.device)
    timings = interleave(calls, args.rounds, warmup=2, min_time=args.min_time / 4, clock=clock(args.device))
    size, rows = 4 * n * c * side * side, []
    for method, mode in COUNTED:
        count, timing = sum(COUNTED[method, mode]), timings[f"{method} {mode} both"]
        value, low, high = ratio_cell(ratio(timing, timings["copy"]))
        share = [round(count / 2 / r, 4) for r in (value, high, low)]
        bytes_ = [round(size / 1e6, 3), round(count * size / 1e6, 3)]
        rows.append([f"{name}: {method} {mode}", *bytes_, round(1e3 * timing.median, 4), share])
    return rows


def draw(tables: Mapping[str, dict[str, list[Any]]], path: Path) -> None:
    """Draw a panel per axis, and bytes moved against time with the copy's speed as the roof."""
    with drawing() as figure_of:
        figure = figure_of(figsize=(7.0, 4.2))
        panels = figure.subplots(2, 3).flatten()
        found = [cell for row in tables[GROWTH].values() for cell in row[2:]] or [(1.0, 1.0, 1.0)]
        for panel, axis in zip(panels, AXES, strict=False):
            rows = [(float(k.split()[1]), row) for k, row in tables[GROWTH].items() if k.split()[0] == axis]
            for i, variant in enumerate(VARIANTS):
                xs, cells = [x for x, _ in rows], [row[2 + i] for _, row in rows]
                panel.plot(xs, [c[0] for c in cells], marker="o", markersize=2, color=colour(i), label=variant)
                panel.fill_between(xs, [c[1] for c in cells], [c[2] for c in cells], color=colour(i), alpha=0.2, lw=0)
            panel.set(xlabel=axis, ylabel="ratio to plain", xscale="log" if rows else "linear")
            panel.set_ylim(min(c[1] for c in found), max(c[2] for c in found))  # one scale: none of them looks steeper
            panel.set_xticks([x for x, _ in rows], [f"{x:g}" for x, _ in rows])
            panel.minorticks_off()
            panel.axhline(1.0, color="black", lw=0.5)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(VARIANTS))
        for panel, layout in zip(panels[len(AXES) :], LAYOUTS, strict=True):
            for i, (method, mode) in enumerate(COUNTED):
                rows_ = [r for k, r in tables[TRAFFIC].items() if f", {layout}: {method} {mode}" in k]
                panel.plot(
                    [r[2] for r in rows_],
                    [r[4][0] for r in rows_],
                    "o-",
                    ms=2,
                    color=colour(i),
                    label=f"{method} {mode}",
                )
            panel.axhline(1.0, color="black", lw=0.5)
            drawn = any(f", {layout}: " in name for name in tables[TRAFFIC])
            panel.set(xlabel=f"MB moved, counted ({layout})", ylabel="share of a copy's speed")
            panel.set_xscale("log" if drawn else "linear")
        panels[len(AXES)].legend()
        save(figure, path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds that a sample lasts at least")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--fresh", action="store_true", help="time rows again that the file has")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--small", action="store_true", help="a small network in place of all, for a test")
    add_out(parser, "growth")
    args = parser.parse_args(argv)
    if args.rounds < 6:
        parser.error(f"--rounds {args.rounds}: an interval of 95 % needs at least six")
    if args.threads:
        torch.set_num_threads(args.threads)
    usual = args.out == parser.get_default("out")
    picture = DOCS_RESULTS.parent / "img" / "growth.png" if usual else args.out.with_suffix(".png")
    groups = names()
    wanted = [name for name in groups if name.startswith(args.only)]
    if not wanted:
        parser.error(f"--only {args.only!r} begins none of the rows: {', '.join(groups)}")
    tables: dict[str, dict[str, list[Any]]] = {GROWTH: {}, TRAFFIC: {}}
    if args.out.is_file() and not args.fresh:
        content = json.loads(args.out.read_text(encoding="utf-8"))["tables"]
        tables = {t: {row[0]: row for row in content.get(t, {"rows": []})["rows"]} for t in COLUMNS}
    interval = f"{ORDER_STATISTICS}: {median_interval(range(args.rounds))[2]:.3f} with {args.rounds} rounds"
    began = time.monotonic()
    for name in wanted:
        place, measure = groups[name]
        if any(key.split(":")[0] == name for key in tables[place]):
            continue
        load = os.getloadavg()[0]
        tables[place] |= {row[0]: row for row in measure(args)}
        ordered = {
            t: [r for n in groups for k, r in rows.items() if k.split(":")[0] == n] for t, rows in tables.items()
        }
        notes = ["NHWC; resnet50, batch 16 at 112², widths from 64, but for the axis"]
        notes += [f"{TUNED or 'untuned'}; load before the last row {load:.1f}"]
        content = {t: table(COLUMNS[t], rows) for t, rows in ordered.items() if rows}
        write(args.out, content, interval=interval, notes=notes)
        draw({t: {r[0]: r for r in rows} for t, rows in ordered.items()}, picture)
        print(f"{time.monotonic() - began:.0f} s: {name}", file=sys.stderr, flush=True)
    show({t: table(COLUMNS[t], list(rows.values())) for t, rows in tables.items() if rows})


if __name__ == "__main__":
    main()
