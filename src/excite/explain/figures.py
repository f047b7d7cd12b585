"""The figures of channel scales: curves per stage, per class, and distributions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from excite.common.plotting import PAGE, colour, dash, drawing, figure_text, first_of_rows, legend_above, panels, save
from excite.explain.scales import BINS, RANGE, SiteScales, last_of_stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ByNetwork = Mapping[str, Sequence[SiteScales]]
CLASSES_SHOWN = 5
LEAST_SPAN = 0.05  # of the y axis: a curve that is flat should look flat


def _finish(axis: "Axes", channels: int) -> None:
    axis.set_xlim(0, max(1, channels - 1))
    axis.set_xlabel("channel index")
    axis.locator_params(axis="x", integer=True)
    axis.ticklabel_format(axis="y", useOffset=False)
    low, high = axis.get_ylim()
    if high - low < LEAST_SPAN:
        middle = (low + high) / 2
        axis.set_ylim(middle - LEAST_SPAN / 2, middle + LEAST_SPAN / 2)


def _width(channels: int) -> float:
    return 1.0 if channels <= 128 else 0.6


def plot_scales(scales: ByNetwork, path: Path) -> Path:
    """Draw the mean scale over images by channel index: a panel per stage, a line per network, as EMCA's figure.

    Of each stage the last attention is drawn.
    """
    lasts = {label: last_of_stages(list(sites)) for label, sites in scales.items()}
    stages = sorted({stage for sites in lasts.values() for stage in sites})
    with drawing() as figure_of:
        figure, axes = panels(figure_of, len(stages), 1.9)
        for axis, stage in zip(axes, stages, strict=True):
            counts = [len(sites[stage].mean) for sites in lasts.values() if stage in sites]
            for i, (label, sites) in enumerate(lasts.items()):
                curve = sites[stage].mean.numpy() if stage in sites else np.empty(0)
                axis.plot(
                    curve, color=colour(i), linestyle=dash(i), label=figure_text(label), linewidth=_width(max(counts))
                )
            axis.set_title(f"stage {stage}")
            _finish(axis, max(counts))
        for axis in first_of_rows(axes):
            axis.set_ylabel("mean channel scale")
        legend_above(figure, axes[0])
        return save(figure, path)


def choose_classes(site: SiteScales, most: int = CLASSES_SHOWN) -> list[int]:
    """Return the classes that were seen; where there are more than `most`, that many spread over them."""
    assert site.per_class is not None
    seen = [i for i, row in enumerate(site.per_class) if not bool(row.isnan().any())]
    if len(seen) <= most:
        return seen
    return [seen[round(i * (len(seen) - 1) / (most - 1))] for i in range(most)]


def plot_classes(
    scales: ByNetwork, class_names: Mapping[str, Sequence[str]], path: Path, classes: Sequence[int] | None = None
) -> Path:
    """Draw each class's mean scale: a row per network, a panel per stage, a line per class, as the SE paper's figure.

    classes: their indices; default: five spread over those that were seen.
    """
    labelled = {n: last_of_stages([s for s in sites if s.per_class is not None]) for n, sites in scales.items()}
    labelled = {n: sites for n, sites in labelled.items() if sites}
    columns = max(len(sites) for sites in labelled.values())
    with drawing() as figure_of:
        figure = figure_of(figsize=(PAGE, 1.95 * len(labelled) + 0.3))
        rows = figure.subfigures(len(labelled), 1, squeeze=False)[:, 0]
        for part, (network, sites) in zip(rows, labelled.items(), strict=True):
            axes = part.subplots(1, columns, squeeze=False)[0]
            part.suptitle(figure_text(network), fontsize=8, fontweight="bold")
            for axis, (stage, site) in zip(axes, sorted(sites.items()), strict=False):
                _class_curves(axis, site, class_names.get(network, ()), classes)
                axis.set_title(f"stage {stage}")
            axes[0].set_ylabel("mean channel scale")
            for axis in axes[len(sites) :]:
                axis.set_axis_off()
        legend_above(figure, rows[0].axes[0])
        return save(figure, path)


def _class_curves(axis: "Axes", site: SiteScales, names: Sequence[str], classes: Sequence[int] | None) -> None:
    assert site.per_class is not None
    width = min(0.8, _width(len(site.mean)))
    for i, c in enumerate(classes or choose_classes(site)):
        label = figure_text(names[c]) if c < len(names) else f"class {c}"
        axis.plot(site.per_class[c].numpy(), color=colour(i), label=figure_text(label), linewidth=width)
    axis.plot(site.mean.numpy(), color="#555555", linestyle=":", label="all images", linewidth=width)
    _finish(axis, len(site.mean))


def plot_distribution(scales: ByNetwork, path: Path) -> Path:
    """Draw the distribution of all weights of each stage (blocks, channels and images), one line per network."""
    stages = sorted({s.stage for sites in scales.values() for s in sites})
    edges = np.linspace(*RANGE, BINS + 1)
    used = np.sum([s.histogram.numpy() for sites in scales.values() for s in sites], axis=0)
    last = int(np.flatnonzero(used).max()) + 1
    with drawing() as figure_of:
        figure, axes = panels(figure_of, len(stages), 1.8)
        for axis, stage in zip(axes, stages, strict=True):
            for i, (label, sites) in enumerate(scales.items()):
                counts = np.sum([s.histogram.numpy() for s in sites if s.stage == stage] or [0 * used], axis=0)
                share = 100 * counts / max(1, counts.sum())
                axis.stairs(share, edges, color=colour(i), label=figure_text(label), linewidth=1.0, linestyle=dash(i))
                axis.stairs(share, edges, color=colour(i), fill=True, alpha=0.15)
            axis.set_title(f"stage {stage}")
            axis.set_xlim(0, max(1.0, edges[last]))
            axis.set_ylim(bottom=0)
            axis.set_xlabel("channel weight")
        for axis in first_of_rows(axes):
            axis.set_ylabel(f"weights (% per {edges[1]:g})")
        legend_above(figure, axes[0])
        return save(figure, path)
