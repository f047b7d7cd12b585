"""The pictures of a comparison: accuracy against MACs with the area as parameters, and the learning curves."""

import statistics
from pathlib import Path

from excite.common.plotting import COLUMN, PAGE, colour, drawing, legend_above, save
from excite.comparison.results import Results, Row


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what can be drawn; return the files."""
    shown = [row for row in results.rows if row.mean is not None]
    files = []
    if shown and all(row.cost for row in shown):
        files.append(bubbles(results, shown, folder / "bubbles.png"))
    if shown:
        files.append(curves(results, shown, folder / "curves.png"))
    return files


def _index(results: Results, row: Row) -> int:
    return results.plan.methods.index(row.method)


def bubbles(results: Results, rows: list[Row], path: Path) -> Path:
    """Draw top-1 against MACs; a bubble's area is its number of parameters (as the ECA-Net paper's figure 1).

    Methods whose MACs hardly differ would hide one another, so their names stand beside them on lines.
    """
    costs = [row.cost for row in rows if row.cost]
    most = max(c["parameters"] for c in costs)
    with drawing() as figure_of:
        figure = figure_of(figsize=(COLUMN + 1.2, 3.0))
        axis = figure.subplots()
        for row, cost in zip(rows, costs, strict=True):
            i = _index(results, row)
            x, y = cost["macs"] / 1e6, 100 * (row.mean or 0)
            if row.std is not None:
                axis.errorbar(x, y, yerr=100 * row.std, color=colour(i), elinewidth=0.8, capsize=2, zorder=2)
            axis.scatter(x, y, s=450 * cost["parameters"] / most, color=colour(i), alpha=0.45, linewidths=0, zorder=3)
            axis.scatter(x, y, s=6, color=colour(i), zorder=4)
            label = f"{row.method} ({cost['parameters'] / 1e6:.3f} M)"
            axis.plot([], [], "o", color=colour(i), markersize=5, label=label)
        axis.margins(x=0.25, y=0.25)
        axis.set_xlabel("MACs (M, one image)")
        axis.set_ylabel("top-1 (%), mean ± 1 std over seeds")
        axis.ticklabel_format(useOffset=False)
        axis.locator_params(axis="x", nbins=4)
        axis.legend(title="method (parameters = area)", title_fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
        return save(figure, path)


def curves(results: Results, rows: list[Row], path: Path) -> Path:
    """Draw training loss and validation top-1 over the epochs: the mean over seeds, every seed faint behind it."""
    with drawing() as figure_of:
        figure = figure_of(figsize=(PAGE, 2.6))
        axes = figure.subplots(1, 2)
        for row in rows:
            i = _index(results, row)
            for axis, key, factor in ((axes[0], "train_loss", 1.0), (axes[1], "val_top1", 100.0)):
                for curve in row.curves.values():
                    axis.plot([p["epoch"] for p in curve], [factor * p[key] for p in curve], color=colour(i), alpha=0.2)
                epochs = min(len(c) for c in row.curves.values())
                mean = [factor * statistics.fmean(c[e][key] for c in row.curves.values()) for e in range(epochs)]
                axis.plot(range(1, epochs + 1), mean, color=colour(i), label=row.method)
        axes[0].set_ylabel("training loss (mean; seeds faint)")
        axes[0].set_yscale("log")
        axes[1].set_ylabel("validation top-1 (%)")
        for axis in axes:
            axis.set_xlabel("epoch")
        legend_above(figure, axes[1])
        return save(figure, path)
