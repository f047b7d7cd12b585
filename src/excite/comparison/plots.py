"""The pictures of a comparison: the gains, accuracy against cost, and the learning curves."""

import statistics
from pathlib import Path
from typing import Any

from excite.common.plotting import NARROW, colour, dash, drawing, figure_text, in_lines, legend_above, log_scale, save
from excite.comparison.results import Results, Row

# Any: matplotlib is an extra, so its classes are not named here.

MOST_LETTERS = 28  # of a name in one line beside the panel of gains
LEAST_SPAN = 0.1  # an axis of costs shows at least so large a share of them: 0.02 % must not look like a distance


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what can be drawn; return the files, the one with the answer first."""
    shown = [row for row in results.rows if row.mean is not None]
    files = []
    if any(row.gain is not None and row.gain.mean is not None for row in shown):
        files.append(gains(shown, results, folder / "gains.png"))
    if shown and all(row.cost for row in shown):
        files.append(costs(results, shown, folder / "costs.png"))
    if shown:
        files.append(curves(results, shown, folder / "curves.png"))
    return files


def _index(results: Results, row: Row) -> int:
    return results.plan.names.index(row.name)


def gains(rows: list[Row], results: Results, path: Path) -> Path:
    """Draw a forest plot: per variant the paired gain with its interval, and every seed's difference as a dot."""
    judged = [row for row in rows if row.gain is not None and row.gain.mean is not None]
    with drawing() as figure_of:
        names = [in_lines(row.name, MOST_LETTERS) for row in judged]
        rows_high = max(1.0, 0.4 * max(name.count("\n") + 1 for name in names))
        figure = figure_of(figsize=(NARROW, 0.32 * rows_high * len(judged) + 0.9))
        axis = figure.subplots()
        for height, row in enumerate(reversed(judged)):
            gain = row.gain
            assert gain is not None
            assert gain.mean is not None
            tone = colour(_index(results, row))
            if gain.low is not None and gain.high is not None:
                axis.plot([100 * gain.low, 100 * gain.high], [height, height], color=tone, linewidth=1.6, zorder=2)
            points = [100 * difference for difference in gain.differences]
            axis.plot(points, [height + 0.22] * len(points), ".", color=tone, markersize=3, alpha=0.7, zorder=2)
            face = tone if gain.clear else "white"
            axis.plot(100 * gain.mean, height, "s", color=tone, markerfacecolor=face, markersize=5, zorder=3)
        axis.axvline(0, color="black", linewidth=0.8, zorder=1)
        axis.set_yticks(range(len(judged)), names[::-1])
        axis.set_ylim(-0.6, len(judged) - 0.3)
        axis.grid(visible=False, axis="y")
        # Of the figure, not of the panel: beside long names the panel is narrower than these words.
        figure.supxlabel("gain in top-1 over the baseline (points; 95 % interval; dots: seeds)", fontsize=8)
        return save(figure, path)


def costs(results: Results, rows: list[Row], path: Path) -> Path:
    """Draw top-1 against what it costs: measured latency and training step (ratios), parameters and MACs."""
    axes_of = [
        ("latency, one image (× baseline)", lambda c: (c["latency_ratio"], c["latency_spread"])),
        ("training step (× baseline)", lambda c: (c["step_ratio"], c["step_spread"])),
        ("parameters (M)", lambda c: (c["parameters"] / 1e6, None)),
        ("MACs (M, one image)", lambda c: (c["macs"] / 1e6, None)),
    ]
    if not all(row.cost and "step_ratio" in row.cost for row in rows):
        del axes_of[1]
    with drawing() as figure_of:
        figure = figure_of(figsize=(NARROW, 2.1 * -(-len(axes_of) // 2) + 0.3))
        panels = figure.subplots(-(-len(axes_of) // 2), 2, squeeze=False, sharey=True)
        for axis in panels.flat[len(axes_of) :]:
            axis.set_axis_off()
        for axis, (label, read) in zip(panels.flat, axes_of, strict=False):
            values = []
            for row in rows:
                x, spread = read(row.cost)
                values += [x, *(spread or ())]
                _point(axis, row, x, spread, _index(results, row))
            middle = (min(values) + max(values)) / 2
            half = max(max(values) - min(values), LEAST_SPAN * middle) * 0.6
            axis.set_xlim(middle - half, middle + half)
            axis.set_xlabel(label)
            axis.ticklabel_format(useOffset=False)
            axis.locator_params(axis="x", nbins=4)
        for axis in panels[:, 0]:
            axis.set_ylabel("top-1 (%), mean ± 1 std")
        legend_above(figure, panels[0, 0])
        return save(figure, path)


def _point(axis: Any, row: Row, x: float, spread: tuple[float, float] | None, i: int) -> None:
    y = 100 * (row.mean or 0)
    error = None if row.std is None else 100 * row.std
    wide = None if spread is None else [[max(0.0, x - spread[0])], [max(0.0, spread[1] - x)]]
    axis.errorbar(
        x, y, yerr=error, xerr=wide, fmt=MARKERS[i % len(MARKERS)], color=colour(i), markersize=5, elinewidth=0.8,
        capsize=2, label=figure_text(row.name),
    )  # fmt: skip
    axis.plot([x] * len(row.top1), [100 * v for v in row.top1.values()], ".", color=colour(i), markersize=4, alpha=0.5)


MARKERS = "osD^vPX<>"


def curves(results: Results, rows: list[Row], path: Path) -> Path:
    """Draw training loss and validation top-1 over the epochs: the mean over seeds, and the band of all seeds."""
    with drawing() as figure_of:
        figure = figure_of(figsize=(NARROW, 2.5))
        axes = figure.subplots(1, 2)
        for place, row in enumerate(rows):
            i = _index(results, row)
            runs = list(row.curves.values())
            epochs = range(min(map(len, runs)))
            for axis, key, factor in ((axes[0], "train_loss", 1.0), (axes[1], "val_top1", 100.0)):
                by_epoch = [[factor * run[e][key] for run in runs] for e in epochs]
                x = [runs[0][e]["epoch"] for e in epochs]
                if len(x) == 1:
                    x = [x[0] + 0.1 * (place - (len(rows) - 1) / 2)]
                mean = [statistics.fmean(values) for values in by_epoch]
                marker = "o" if len(x) == 1 else None
                axis.plot(x, mean, linestyle=dash(i), color=colour(i), marker=marker, label=figure_text(row.name))
                low, high = [min(values) for values in by_epoch], [max(values) for values in by_epoch]
                if len(x) == 1:  # side by side, as there is no curve that could be followed
                    axis.vlines(x, low, high, color=colour(i))
                axis.fill_between(x, low, high, color=colour(i), alpha=0.15, linewidth=0)
        axes[0].set_ylabel("training loss (band: all seeds)")
        log_scale(axes[0])
        axes[1].set_ylabel("validation top-1 (%)")
        for axis in axes:
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            if all(len(curve) == 1 for row in rows for curve in row.curves.values()):
                axis.set_xticks([1])
        legend_above(figure, axes[1])
        return save(figure, path)
