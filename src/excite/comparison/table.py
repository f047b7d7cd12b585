"""The one table: terminal and Markdown text, CSV."""

import csv
import io
from collections.abc import Mapping

from excite.common.tables import printable
from excite.comparison.results import Results, Row
from excite.train.config import resolve_recipe

HEADER = (
    "method", "parameters", "MACs", "latency", "throughput", "training memory", "top-1", "gain over {}", "p, Holm",
    "verdict",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as text; what is not known yet is a dash."""
    cost = row.cost
    if cost is None:
        counted = ("-",) * 5
    else:
        counted = (
            f"{cost['parameters'] / 1e6:.3f} M",
            f"{cost['macs'] / 1e6:.2f} M",
            _ratio(cost["latency_ratio"], cost["latency_spread"]),
            _ratio(cost["throughput_ratio"], cost["throughput_spread"]),
            f"{cost['training_memory'] / 1e6:.1f} MB",
        )
    return (row.method, *counted, accuracy(row), gain(row), p_value(row), row.verdict)


def _ratio(value: float, spread: tuple[float, float]) -> str:
    return f"{value:.2f}x ({spread[0]:.2f}-{spread[1]:.2f})"


def accuracy(row: Row) -> str:
    """Return mean and deviation of top-1 in percent, with the number of seeds."""
    if row.mean is None:
        return "-"
    spread = f" ± {100 * row.std:.2f}" if row.std is not None else ""
    return f"{100 * row.mean:.2f}{spread} % (n={len(row.top1)})"


def gain(row: Row) -> str:
    """Return the paired gain in percentage points with its 95 % interval."""
    if row.gain is None or row.gain.mean is None:
        return "-"
    text = f"{100 * row.gain.mean:+.2f}"
    if row.gain.low is None or row.gain.high is None:
        return text
    return f"{text} [{100 * row.gain.low:+.2f}, {100 * row.gain.high:+.2f}]"


def p_value(row: Row) -> str:
    """Return the p-value of the gain, corrected for all methods of the table."""
    if row.gain is None or row.gain.p_holm is None:
        return "-"
    return "<0.001" if row.gain.p_holm < 0.001 else f"{row.gain.p_holm:.3f}"


def header(results: Results) -> tuple[str, ...]:
    """Return the column names."""
    return tuple(h.format(results.plan.methods[0]) for h in HEADER)


def notes(results: Results) -> list[str]:
    """Return what a reader must know to read the table."""
    plan = results.plan
    first = plan.methods[0]
    lines = []
    if not results.complete:
        lines.append(f"UNFINISHED: {results.finished} of {results.total} runs are done; the table shows what is there.")
    changed = "".join(f", {k}={v}" for k, v in plan.changes.items())
    recipe = resolve_recipe(plan.recipe, plan.backbone, plan.data)
    lines.append(
        f"{plan.backbone} on {plan.data}, recipe {recipe}{changed}; {plan.seeds} seed(s). Per seed all methods "
        "share the backbone's first weights, the data order and the augmentation; top-1 is that of the last epoch."
    )
    lines.append("Top-1: mean over the seeds (n of them) ± one sample standard deviation.")
    lines.append(
        f"Gain: mean over seeds of (method - {first}), percentage points, with its own 95 % interval (paired "
        f"Student t). The verdict is stricter: its p-value is corrected for the {len(plan.methods) - 1} methods of the "
        "table (Holm), so that 'better' or 'worse' is false somewhere in at most 5 % of tables."
    )
    if plan.seeds == 1:
        lines.append("One seed: no interval can be given, because nothing says how much a second run would differ.")
    costs = [row.cost for row in results.rows if row.cost]
    if costs:
        lines.append(
            f"Latency (one image) and throughput ({costs[0]['batch']} images) are ratios to {first}, measured in turn "
            f"in one session at {costs[0]['size']}x{costs[0]['size']}, with the middle 90 % of the rounds. MACs: "
            "convolutions and matrix products, one image. Training memory: peak of one step of "
            f"{costs[0]['batch']} images."
        )
    if results.environment:
        lines.append(environment_text(results.environment))
    return [printable(line) for line in lines]


def environment_text(values: dict[str, object]) -> str:
    """Return the machine and versions in a line."""
    from excite.measure.bench.environment import in_words

    return f"Measured on {in_words(values)}."


def to_markdown(results: Results) -> str:
    """Return the table and its notes as Markdown."""
    names = header(results)
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in results.rows]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes(results))])


def to_csv(results: Results) -> str:
    """Return one line per method, numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["method", "parameters", "attention_parameters", "macs", "latency_ms", "latency_ratio", "throughput",
         "throughput_ratio", "training_memory", "seeds", "top1_mean", "top1_std", "gain", "gain_low", "gain_high",
         "p", "p_holm", "verdict"]
    )  # fmt: skip
    for row in results.rows:
        cost: Mapping[str, object] = row.cost or {}
        known = [cost.get(k, "") for k in ("parameters", "attention_parameters", "macs", "latency_ms", "latency_ratio",
                                           "throughput", "throughput_ratio", "training_memory")]  # fmt: skip
        g = row.gain
        gains = [""] * 5 if g is None else [_blank(v) for v in (g.mean, g.low, g.high, g.p, g.p_holm)]
        writer.writerow([row.method, *known, len(row.top1), _blank(row.mean), _blank(row.std), *gains, row.verdict])
    return out.getvalue()


def _blank(value: float | None) -> float | str:
    return "" if value is None else value
