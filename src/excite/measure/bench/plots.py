"""Bench results as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from excite.common.extras import require
from excite.common.plotting import save
from excite.errors import UsageError
from excite.measure.bench.report import groups
from excite.measure.bench.run import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _figure(width: float, height: float, panels: int = 1) -> "tuple[Figure, list[Axes]]":
    require("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)
    return figure, [row[0] for row in axes]


def _save(figure: "Figure", path: str | Path) -> Path:
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"plot file {str(path)!r}: plots are PNG; name it something.png")
    return save(figure, path, dpi=110)


def bars(report: Report, path: str | Path) -> Path:
    """Draw the time of every network relative to the first, one panel per task and batch size, and save a PNG.

    The whiskers are the middle 90 % of the rounds. Raises UsageError for another suffix than .png.
    """
    grouped = groups(report.results)
    height = sum(0.7 + 0.34 * len(g) for g in grouped.values())
    figure, axes = _figure(8, height + 0.5, len(grouped))
    for axis, ((task, batch), results) in zip(axes, grouped.items(), strict=True):
        values = [r.ratio for r in results]
        low = [max(0.0, r.ratio - r.ratio_low) for r in results]
        high = [max(0.0, r.ratio_high - r.ratio) for r in results]
        places = range(len(results))
        axis.barh(places, values, xerr=[low, high], color="#4878a8", ecolor="#222222", capsize=3, height=0.65)
        axis.set_yticks(places, [r.label for r in results])
        axis.invert_yaxis()
        right = max(r.ratio_high for r in results)
        axis.set_xlim(0, 1.25 * max(right, *values))
        for i, r in enumerate(results):
            text = f"{r.ratio:.2f}   {1000 * r.seconds:.3g} ms"
            axis.text(max(r.ratio, r.ratio_high) + 0.015 * right, i, text, va="center", fontsize=8)
        axis.axvline(1, color="#888888", linewidth=0.8)
        axis.set_title(f"{task}, batch {batch}: time / {results[0].label}", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def latency_accuracy(report: Report, accuracy: Mapping[str, float], path: str | Path, label: str) -> Path:
    """Draw accuracy over latency (batch 1; the first task measured where latency is not), and save a PNG.

    accuracy: per cent by model name; models without one are left out; label: where the accuracies come from.
    Raises UsageError where no measured model has an accuracy.
    """
    grouped = groups(report.results)
    key = next((k for k in grouped if k[0] == "latency"), next(iter(grouped)))
    points = [(r, accuracy[r.model]) for r in grouped[key] if r.model in accuracy]
    if not points:
        known = ", ".join(sorted(accuracy)) or "none"
        raise UsageError(f"no accuracy for any of the measured models; known: {known}; give --accuracy NAME=PERCENT")
    figure, (axis,) = _figure(7, 4.6)
    for r, value in points:
        x = 1000 * r.seconds
        spread = [[max(0.0, x - 1000 * r.quartile_low)], [max(0.0, 1000 * r.quartile_high - x)]]
        axis.errorbar(x, value, xerr=spread, fmt="o", color="#4878a8", ecolor="#999999", capsize=2)
    _annotate(axis, [(1000 * r.seconds, v, r.label) for r, v in points])
    axis.set_xlabel(f"{key[0]}, ms per call (batch {key[1]}); median and quartiles")
    axis.set_ylabel(f"accuracy, % ({label})")
    axis.grid(alpha=0.25)
    axis.margins(0.18, 0.15)
    axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def _annotate(axis: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    for i, (x, y, text) in enumerate(sorted(points)):
        above = i % 2 == 0
        axis.annotate(
            text,
            (x, y),
            xytext=(0, 7 if above else -7),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=8,
        )
