"""The table of an `excite compare`, as a result file that the docs are written from.

python benchmarks/comparison_table.py --out docs/results/compare-cifar10.json cifar10
"""

import argparse
from pathlib import Path
from typing import Any

from record import show, table, write

from excite.comparison.results import Row, collect
from excite.comparison.table import baseline

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


def main() -> None:
    """Read the comparison, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = collect(args.folder)
    first, seeds = baseline(results), range(results.plan.seeds)
    columns = {name.format(first): form for name, form in COLUMNS.items()}
    by_seed = [[r.name, *(100 * r.top1[s] if s in r.top1 else None for s in seeds)] for r in results.rows]
    tables = {
        "methods": table(columns, [cells(row) for row in results.rows]),
        "top-1 by seed": table({"variant": "", **{f"seed {s}": "{:.2f} %" for s in seeds}}, by_seed),
    }
    show(tables)
    others = sum(row.gain is not None for row in results.rows)
    notes = [f"± is one sample standard deviation over {len(seeds)} seeds. p is corrected for {others} variants (Holm)"]
    interval = "of the gain its own 95 % interval (paired Student t), of costs the middle 90 % of the rounds"
    write(args.out, tables, interval=interval, notes=notes, plan=results.plan.to_dict())


if __name__ == "__main__":
    main()
