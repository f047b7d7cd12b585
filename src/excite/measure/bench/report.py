"""Bench results as text tables."""

from collections.abc import Sequence

from rich.table import Table

from excite.measure.bench.run import Report, Result


def groups(results: Sequence[Result]) -> dict[tuple[str, int], list[Result]]:
    """Group results by task and batch size, in order."""
    grouped: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.task, result.batch_size), []).append(result)
    return grouped


def milliseconds(seconds: float) -> str:
    """Return milliseconds with four significant digits."""
    return f"{1000 * seconds:.4g}"


def tables(report: Report) -> list[Table]:
    """Return one table per task and batch size."""
    blocks = []
    for (task, batch), results in groups(report.results).items():
        table = Table(title=f"{task}, batch {batch}, input {_shape(report, batch)}", title_justify="left")
        first = results[0].label
        heads = ("network", "median ms", "quartiles ms", "images/s", f"time / {first}", "90 % of rounds", "peak MB")
        for head in heads:
            table.add_column(head, justify="left" if head == "network" else "right")
        for r in results:
            table.add_row(
                r.label,
                milliseconds(r.seconds),
                f"{milliseconds(r.quartile_low)} .. {milliseconds(r.quartile_high)}",
                f"{r.rate:.4g}",
                f"{r.ratio:.3f}",
                f"{r.ratio_low:.3f} .. {r.ratio_high:.3f}",
                "-" if r.peak_bytes is None else f"{r.peak_bytes / 1e6:.1f}",
            )
        blocks.append(table)
    return blocks


def _shape(report: Report, batch: int) -> str:
    return "x".join(map(str, [batch, *report.settings["input_shape"][1:]]))


def describe(report: Report) -> str:
    """Return the environment in two lines."""
    env = report.environment
    where = env.get("gpu") or f"{env['processor']} ({env['cores']} cores, {env['threads']} threads)"
    versions = ", ".join(f"{k} {v}" for k, v in env["versions"].items())
    rounds = report.settings["rounds"]
    return f"{where}; load {env['load_before']} before; {env['date']}\n{versions}; {rounds} rounds, measured in turn"
