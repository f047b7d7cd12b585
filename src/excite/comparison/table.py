"""The one table: terminal and Markdown text, CSV."""

import csv
import io
from collections.abc import Mapping

from excite.common.tables import counted, markdown_row, printable
from excite.comparison.agreement import REMEDY, few
from excite.comparison.results import Results, Row
from excite.comparison.statistics import p_in_words
from excite.train.config import resolve_recipe

HEADER = (
    "variant", "parameters", "MACs", "latency", "training step", "training memory", "top-1", "gain over {}", "p, Holm",
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
            _ratio(cost["step_ratio"], cost["step_spread"]) if "step_ratio" in cost else "-",
            f"{cost['training_memory'] / 1e6:.1f} MB",
        )
    return (printable(row.name), *counted, accuracy(row), gain(row), p_value(row), row.verdict)


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
    """Return the p-value of the gain, corrected for all variants of the table."""
    if row.gain is None or row.gain.p_holm is None:
        return "-"
    return p_in_words(row.gain.p_holm)


def header(results: Results) -> tuple[str, ...]:
    """Return the column names."""
    return tuple(h.format(printable(baseline(results))) for h in HEADER)


def baseline(results: Results) -> str:
    """Return the baseline's name; with several backbones each has one of its own."""
    return results.plan.names[0] if len(results.plan.backbones) == 1 else "the baseline"


def verdict(results: Results) -> str:
    """Return what the comparison has found, in sentences."""
    if results.disagreements:
        return "NOT COMPARABLE: these runs differ in more than their variants and seeds."
    words = [
        f"{row.name} is {row.gain.verdict} than {row.baseline}: {gain(row)} points."
        for row in results.rows
        if row.gain is not None and row.gain.clear
    ]
    open_ = [row.name for row in results.rows if row.gain is not None and not row.gain.clear]
    if open_:
        words.append(
            f"Between {', '.join(open_)} and {baseline(results)} no difference was shown; that does not mean that "
            "there is none."
        )
    if results.visible is not None:
        seeds = max(len(row.top1) for row in results.rows)
        words.append(f"With {seeds} seeds that differ as these do, {power(results.visible)}.")
    return printable(" ".join(words) or "Nothing can be compared yet.")


def power(visible: float) -> str:
    """Return in words which gain (a share) so many seeds show."""
    if visible >= 1:
        return "not even the largest gain there can be is found with a probability of 80 %"
    return f"a true gain of {100 * visible:.1f} points is found with a probability of 80 %"


def notes(results: Results) -> list[str]:
    """Return what a reader must know to read the table."""
    plan = results.plan
    first = baseline(results)
    lines = [f"NOT COMPARABLE: {few(results.disagreements)}; {REMEDY}."] if results.disagreements else []
    if not results.complete:
        lines.append(f"UNFINISHED: {results.finished} of {results.total} runs are done; the table shows what is there.")
    changed = "".join(f", {k}={v}" for k, v in plan.changes.items())
    recipes = dict.fromkeys(resolve_recipe(plan.recipe, backbone, plan.data) for backbone in plan.backbones)
    lines.append(
        f"{', '.join(plan.backbones)} on {plan.data}, recipe {', '.join(recipes)}{changed}; "
        f"{counted(plan.seeds, 'seed')}. Per seed all variants share the backbone's first weights, the data order and "
        f"the augmentation; top-1 is that of the "
        f"last epoch{f', on the {results.split} split' if results.split else ''}."
    )
    lines.append("Top-1: mean over the seeds (n of them) ± one sample standard deviation.")
    others = sum(row.name != row.baseline for row in results.rows)
    again = f" and for {plan.judged} looks at it (Bonferroni)" if plan.judged > 1 else ""
    lines.append(
        f"Gain: mean over seeds of (variant - {first}), percentage points, with its own 95 % interval (paired "
        f"Student t). The verdict is stricter: its p-value is corrected for the {counted(others, 'variant')} of the "
        f"table (Holm){again}, so that 'better' or 'worse' is false somewhere in at most 5 % of tables."
    )
    if plan.seeds == 1:
        lines.append("One seed: no interval can be given, because nothing says how much a second run would differ.")
    if results.visible is not None:
        lines.append(f"With seeds that vary as these do, {power(results.visible)}; smaller ones need more seeds.")
    if plan.budget is not None:
        lines.append(f"Epochs and images were planned for {plan.budget:g} minutes (--budget).")
    costs = [row.cost for row in results.rows if row.cost]
    if costs:
        lines.append(
            f"Latency (one image) and training step (forward and backward, {costs[0]['batch']} images) are ratios to "
            f"{first}, measured in turn in one session at {costs[0]['size']}x{costs[0]['size']}, with the middle 90 % "
            "of the rounds. MACs: convolutions and matrix products, one image. Training memory: peak of one such step."
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
    lines = [markdown_row(names), "|---" * len(names) + "|", *(markdown_row(cells(row)) for row in results.rows)]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes(results))])


NUMBERS = (
    "parameters", "attention_parameters", "macs", "latency_ms", "latency_ratio", "throughput", "throughput_ratio",
    "step_ms", "step_ratio", "training_memory",
)  # fmt: skip


def to_csv(results: Results) -> str:
    """Return one line per variant, numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["variant", "method", "backbone", "baseline", *NUMBERS, "seeds", "top1_mean", "top1_std", "gain", "gain_low",
         "gain_high", "p", "p_holm", "verdict", "epoch_seconds"]
    )  # fmt: skip
    for row in results.rows:
        cost: Mapping[str, object] = row.cost or {}
        g = row.gain
        gains = [""] * 5 if g is None else [_blank(v) for v in (g.mean, g.low, g.high, g.p, g.p_holm)]
        epochs = sum(map(len, row.curves.values()))
        who = [row.name, row.variant.method, row.variant.backbone, row.baseline]
        numbers = [cost.get(name, "") for name in NUMBERS]
        accuracies = [len(row.top1), _blank(row.mean), _blank(row.std)]
        writer.writerow([*who, *numbers, *accuracies, *gains, row.verdict, row.seconds / epochs if epochs else ""])
    return out.getvalue()


def _blank(value: float | None) -> float | str:
    return "" if value is None else value
