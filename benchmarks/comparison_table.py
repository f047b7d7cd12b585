"""A finished `excite compare`, put where the docs are written from: its tables, its pictures, its page.

    python benchmarks/comparison_table.py FOLDER --name ablation-kernel

writes docs/results/NAME.json, docs/img/NAME_gains.png, _costs.png, _curves.png, docs/reports/NAME.html, and anew
docs/ablations.md, which sets all comparisons there beside the published ones. A data path of this machine is written as
data/FOLDER.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import HERE, show, shown_data, table, write

from excite.common.files import write_bytes, write_text
from excite.comparison import claims
from excite.comparison.agreement import few
from excite.comparison.command import command
from excite.comparison.page import page
from excite.comparison.plots import draw
from excite.comparison.results import Results, Row, collect
from excite.comparison.table import baseline
from excite.measure.bench.environment import in_words

DOCS = HERE.parent / "docs"
COLUMNS = {
    "variant": "", "parameters": "{:.3f} M", "MACs": "{:.2f} M", "latency": "{:.2f}x ({:.2f}-{:.2f})",
    "training step": "{:.2f}x ({:.2f}-{:.2f})", "training memory": "{:.1f} MB", "top-1": "{:.2f} ± {:.2f} %",
    "gain over {}": "{:+.2f} [{:+.2f}, {:+.2f}]", "p, Holm": "{:.3f}", "verdict": "",
}  # fmt: skip


def cells(row: Row) -> list[Any]:
    """Return a variant's row; accuracies in per cent, gains in points."""
    cost: list[Any] = [None] * 5
    if row.cost:
        step = [row.cost["step_ratio"], *row.cost["step_spread"]] if "step_ratio" in row.cost else None
        ratios = [[row.cost["latency_ratio"], *row.cost["latency_spread"]], step]
        cost = [row.cost["parameters"] / 1e6, row.cost["macs"] / 1e6, *ratios, row.cost["training_memory"] / 1e6]
    top1 = None if row.mean is None or row.std is None else [100 * row.mean, 100 * row.std]
    g = row.gain
    gain = None if g is None or g.mean is None or g.low is None or g.high is None else [g.mean, g.low, g.high]
    points = None if gain is None else [100 * x for x in gain]
    return [row.name, *cost, top1, points, None if g is None else g.p_holm, row.verdict]


def public(results: Results) -> Results:
    """Return the results without the place of the data on this machine."""
    return replace(results, plan=replace(results.plan, data=shown_data(results.plan.data)))


def tables(results: Results) -> dict[str, Any]:
    """Return the table of variants, and top-1 of every run."""
    first, seeds = baseline(results), range(results.plan.seeds)
    by_seed = [[r.name, *(100 * r.top1[s] if s in r.top1 else None for s in seeds)] for r in results.rows]
    return {
        "variants": table({name.format(first): form for name, form in COLUMNS.items()}, list(map(cells, results.rows))),
        "top-1 by seed": table({"variant": "", **{f"seed {s}": "{:.2f} %" for s in seeds}}, by_seed),
    }


def numbers(results: Results) -> dict[str, Any]:
    """Return what `excite tables` reads: the rows unrounded, without their learning curves."""
    values = results.to_dict()
    rows = [{k: v for k, v in row.items() if k != "curves"} for row in values["rows"]]
    left_out = ("plan", "environment", "disagreements")
    return {**{k: v for k, v in values.items() if k not in left_out}, "rows": rows}


def main(arguments: list[str] | None = None, docs: Path = DOCS) -> None:
    """Read the comparison, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True, help="of the files, as ablation-kernel")
    parser.add_argument("--note", action="append", default=[], help="what a reader must know besides")
    parser.add_argument("--commit", help="whose sources trained, where they are not those of this checkout")
    args = parser.parse_args(arguments)
    results = public(collect(args.folder))
    if not results.complete:
        parser.error(f"{args.folder}: {results.finished} of {results.total} runs are done; finish it first")
    if results.disagreements:
        parser.error(f"{args.folder}: {few(results.disagreements)}; such runs cannot stand in one table")
    kept = tables(results)
    show(kept)
    with tempfile.TemporaryDirectory() as temporary:
        pictures = draw(results, Path(temporary))
        for picture in pictures:
            write_bytes(docs / "img" / f"{args.name}_{picture.name}", picture.read_bytes())
        write_text(docs / "reports" / f"{args.name}.html", page(results, pictures))
    others = sum(row.gain is not None for row in results.rows)
    looks = f" and {results.plan.judged} looks" if results.plan.judged > 1 else ""
    notes = [f"± is one sample standard deviation over {results.plan.seeds} seeds"]
    notes += [f"p is corrected for {others} variants (Holm){looks}", *args.note]
    facts: dict[str, Any] = {"command": command(results.plan)}
    if args.commit:
        facts["commit"] = args.commit
    if results.environment:
        facts |= {"machine": in_words(results.environment), "versions": results.environment.get("versions", {})}
    interval = "of the gain its own 95 % interval (paired Student t), of costs the middle 90 % of the rounds"
    path = docs / "results" / f"{args.name}.json"
    write(path, kept, interval=interval, **facts, notes=notes, plan=results.plan.to_dict(), comparison=numbers(results))
    write_text(docs / "ablations.md", claims.to_markdown(claims.find(claims.load(docs / "results"))))


if __name__ == "__main__":
    main()
