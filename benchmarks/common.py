"""What the benchmark scripts share: options, the run, the dated files."""

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from record import command, commit

from excite.common.files import write_text
from excite.common.options import options_of, to_pairs
from excite.common.tables import make_console
from excite.measure.bench import plots
from excite.measure.bench.report import describe, tables
from excite.measure.bench.run import Report, bench
from excite.measure.bench.variants import variants
from excite.measure.names import builder

RESULTS = Path(__file__).parent / "results"


def parser(about: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--min-time", type=float, default=0.2, help="seconds that one sample lasts at least")
    made.add_argument("--threads", type=int, help="threads of torch on the CPU")
    made.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    made.add_argument("--results", type=Path, default=RESULTS)
    return made


def measure(
    args: argparse.Namespace,
    models: Sequence[str],
    *,
    tasks: Sequence[str] = ("latency",),
    batch_sizes: Sequence[int] = (),
    side: int = 224,
    options: Mapping[str, Any] | None = None,
) -> tuple[Report, dict[str, str]]:
    """Bench `models` in turn and print the tables; returns the report and each model's options."""
    if args.threads:
        torch.set_num_threads(args.threads)
    per_model = {name: options_of(name, models, options or {}) for name in models}
    report = bench(
        variants(models, ["eager"], [args.precision], ["torch"]),
        {name: builder(name, own, 1000, 3) for name, own in per_model.items()},
        input_shape=(3, side, side),
        tasks=tasks,
        batch_sizes=batch_sizes,
        device=args.device,
        rounds=args.rounds,
        min_time=args.min_time,
    )
    console = make_console()
    for table in tables(report):
        console.print(table)
    print(describe(report))
    return report, {name: " ".join(to_pairs(own)) for name, own in per_model.items()}


def save(
    args: argparse.Namespace, report: Report, options: dict[str, str], name: str, *, records: bool = False
) -> None:
    """Write `DATE-name.json` and `DATE-name.png`.

    records: whether `excite tables` shows these speeds. One session per table, or its rows could not be compared.
    """
    stem = f"{datetime.date.today().isoformat()}-{args.device}-{name}"
    found = {"command": command(), "commit": commit()} | report.to_dict(options)
    if not records:
        found.pop("records")
    write_text(args.results / f"{stem}.json", json.dumps(found, indent=1) + "\n")
    plots.bars(report, args.results / f"{stem}.png")
    print(f"wrote {args.results / stem}.json and .png")
