"""The figures of channel scales: sorted curves per stage, classes as heat strips, distributions.

They are drawn for networks of 16 to 2,048 channels, on axes that all panels share, and narrow enough for a phone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from excite.common.plotting import (
    COLUMN,
    NARROW,
    colour,
    dash,
    drawing,
    figure_text,
    first_of_rows,
    last_of_columns,
    legend_above,
    panels,
    save,
)
from excite.explain.gates import stage_name
from excite.explain.scales import BINS, RANGE, SiteScales, last_of_stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


ByNetwork = Mapping[str, Sequence[SiteScales]]
CLASSES_SHOWN = 6
STRIP = 64  # channels that a strip has room for; of more, those that differ most between the classes
LEAST_SPAN = 0.05  # of the y axis: a curve that is flat should look flat
LEAST_DEVIATION = 0.01  # of the colours' scale, likewise
SMOOTH = 16  # a band's half width is the mean over one of so many parts of the sorted channels, three at least


def plot_scales(scales: ByNetwork, path: Path) -> Path:
    """Draw each stage's last attention: the channels' mean scales, sorted, a line per network; all axes are shared.

    The band is one standard deviation over the images on either side, smoothed along the sorted channels; of one image
    there is none.
    """
    lasts = {label: last_of_stages(list(sites)) for label, sites in scales.items()}
    stages = sorted({stage for sites in lasts.values() for stage in sites})
    with drawing() as figure_of:
        figure, axes = panels(figure_of, len(stages), 1.7, width=NARROW, most=2, sharex=True, sharey=True)
        for axis, stage in zip(axes, stages, strict=True):
            shown = {label: sites[stage] for label, sites in lasts.items() if stage in sites}
            for i, label in enumerate(lasts):
                _sorted_curve(axis, shown.get(label), i, label)
            axis.set_title(_names([site.name for site in shown.values()]), fontsize=7)
            counts = sorted({len(site.mean) for site in shown.values()})
            text = f"{' or '.join(map(str, counts))} channels"
            axis.text(0.97, 0.04, text, transform=axis.transAxes, ha="right", fontsize=7, color="#555555")
        low, high = axes[0].get_ylim()
        span = max(LEAST_SPAN, high - low)
        axes[0].set_ylim((low + high - span) / 2, (low + high + span) / 2)
        axes[0].set_xlim(0, 100)
        axes[0].ticklabel_format(axis="y", useOffset=False)
        for axis in first_of_rows(axes):
            axis.set_ylabel("mean channel scale")
        for axis in last_of_columns(axes):
            axis.set_xlabel("channels, sorted (%)")
        legend_above(figure, axes[0])
        return save(figure, path)


def _sorted_curve(axis: "Axes", site: SiteScales | None, i: int, label: str) -> None:
    if site is None:
        axis.plot([], [], color=colour(i), linestyle=dash(i), label=figure_text(label))
        return
    order = site.mean.argsort()
    mean, deviation = site.mean[order].numpy(), site.std[order].numpy()
    x = np.linspace(0, 100, 2 * len(mean) + 1)[1::2]  # the middle of each channel's share
    axis.plot(x, mean, color=colour(i), linestyle=dash(i), label=figure_text(label))
    if site.images > 1:
        half = smoothed(deviation, max(3, len(mean) // SMOOTH))
        axis.fill_between(x, mean - half, mean + half, color=colour(i), alpha=0.15, linewidth=0)


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Return the means of `width` neighbours; at the ends of those that there are."""
    ones = np.ones(width)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _names(names: Sequence[str]) -> str:
    """The names that tables give the attentions of a panel; where networks differ, each once."""
    return figure_text(" / ".join(dict.fromkeys(names)))


def seen_classes(site: SiteScales) -> list[int]:
    """Return the classes that an image was seen of."""
    return [] if site.per_class is None else [i for i, row in enumerate(site.per_class) if not bool(row.isnan().any())]


def plot_stages(weights: Mapping[str, Mapping[int, Tensor]], path: Path) -> Path:
    """Draw the weights `[c]` that one image gets by channel index: a panel per stage, under each other, for a column.

    weights: by stage, for each label.
    """
    stages = sorted({stage for curves in weights.values() for stage in curves})
    with drawing() as figure_of:
        figure = figure_of(figsize=(COLUMN, 1.25 * len(stages) + 0.3))
        axes = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
        for axis, stage in zip(axes, stages, strict=True):
            for i, (label, curves) in enumerate(weights.items()):
                if stage in curves:
                    values = curves[stage].numpy()
                    style = "--" if i else "-"  # equal curves lie on each other, and both are seen
                    axis.plot(
                        values,
                        color=colour(i),
                        linestyle=style,
                        label=figure_text(label),
                        linewidth=1.0 if len(values) <= 128 else 0.6,
                    )
            axis.set_title(f"stage {stage}")
            axis.set_ylabel("weight")
            axis.locator_params(axis="x", integer=True)
            axis.margins(x=0)
            low, high = axis.get_ylim()
            if high - low < LEAST_SPAN:
                axis.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
        axes[-1].set_xlabel("channel index")
        legend_above(figure, axes[0])
        return save(figure, path)


def choose_classes(site: SiteScales, most: int = CLASSES_SHOWN) -> list[int]:
    """Return the classes that were seen; where there are more than `most`, that many spread over them."""
    seen = seen_classes(site)
    if len(seen) <= most:
        return seen
    return [seen[round(i * (len(seen) - 1) / (most - 1))] for i in range(most)]


def deviations(site: SiteScales, classes: Sequence[int], most: int = STRIP) -> np.ndarray:
    """Return how far classes lie from the mean over all images, `[classes channels]`, NaN for a class without images.

    Of more than `most` channels those that differ most between the classes. Channels stand together by the class that
    raises them most, the strongest first.
    """
    assert site.per_class is not None
    values = (site.per_class[list(classes)] - site.mean).numpy()
    known = values[~np.isnan(values).any(1)]
    if not len(known):
        return values[:, :most]
    chosen = np.sort(np.argsort(-known.std(0), kind="stable")[:most])
    part = known[:, chosen]
    return values[:, chosen[np.lexsort((-part.max(0), part.argmax(0)))]]


def plot_classes(
    scales: ByNetwork, class_names: Mapping[str, Sequence[str]], path: Path, classes: Sequence[int] | None = None
) -> Path:
    """Draw how classes move the channels of each stage's last attention: a strip per attention, a row per class.

    The colours are one scale for all strips. classes: their indices; default: six spread over those that were seen.
    """
    sites = [
        (label, site)
        for label, group in scales.items()
        for _, site in sorted(last_of_stages([s for s in group if s.per_class is not None]).items())
    ]
    chosen = [list(classes or choose_classes(site)) for _, site in sites]
    values = [deviations(site, wanted) for (_, site), wanted in zip(sites, chosen, strict=True)]
    known = np.abs(np.concatenate([v[~np.isnan(v)] for v in values]))
    limit = max(LEAST_DEVIATION, float(np.quantile(known, 0.99)) if len(known) else 0.0)
    heights = [0.4 + 0.12 * len(wanted) for wanted in chosen]
    with drawing() as figure_of:
        figure = figure_of(figsize=(NARROW, sum(heights) + 0.6))
        axes = figure.subplots(len(sites), 1, squeeze=False, height_ratios=[h - 0.25 for h in heights])[:, 0]
        for axis, (label, site), wanted, part in zip(axes, sites, chosen, values, strict=True):
            names = class_names.get(label, ())
            rows = [figure_text(_short(names[c] if c < len(names) else f"class {c}")) for c in wanted]
            shown = _strip(axis, part, rows, limit)
            axis.set_title(figure_text(f"{label}: {site.name}"), loc="left", fontsize=7)
            count, total = part.shape[1], len(site.mean)
            axis.set_title(
                f"{count} of {total} channels" if count < total else f"{total} channels", loc="right", fontsize=7
            )
        bar = figure.colorbar(
            shown, ax=list(axes), location="bottom", fraction=0.25 / len(sites), pad=0.02, aspect=40, extend="both"
        )
        bar.set_label("mean scale of the class − mean over all images", fontsize=7)
        return save(figure, path)


def _strip(axis: "Axes", values: np.ndarray, rows: Sequence[str], limit: float) -> "AxesImage":
    image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axis.set_facecolor("#bbbbbb")  # of a class without images
    axis.set_yticks(range(len(rows)), rows, fontsize=7)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.grid(visible=False)
    return image


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def plot_distribution(scales: ByNetwork, path: Path) -> Path:
    """Draw the distribution of all weights of each stage (blocks, channels and images), one line per network."""
    stages = {s.stage: stage_name(s.name, s.stage) for sites in scales.values() for s in sites}
    edges = np.linspace(*RANGE, BINS + 1)
    used = np.sum([s.histogram.numpy() for sites in scales.values() for s in sites], axis=0)
    last = int(np.flatnonzero(used).max()) + 1
    with drawing() as figure_of:
        figure, axes = panels(figure_of, len(stages), 1.5, width=NARROW, most=2, sharex=True)
        for axis, (stage, name) in zip(axes, sorted(stages.items()), strict=True):
            for i, (label, sites) in enumerate(scales.items()):
                counts = np.sum([s.histogram.numpy() for s in sites if s.stage == stage] or [0 * used], axis=0)
                share = 100 * counts / max(1, counts.sum())
                axis.stairs(share, edges, color=colour(i), label=figure_text(label), linewidth=1.0, linestyle=dash(i))
                axis.stairs(share, edges, color=colour(i), fill=True, alpha=0.15)
            axis.set_title(figure_text(name))
            axis.set_xlim(0, max(1.0, edges[last]))
            axis.set_ylim(bottom=0)
        for axis in last_of_columns(axes):
            axis.set_xlabel("channel weight")
        for axis in first_of_rows(axes):
            axis.set_ylabel(f"weights (% per {edges[1]:g})")
        legend_above(figure, axes[0])
        return save(figure, path)
