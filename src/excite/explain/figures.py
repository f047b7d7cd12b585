"""The figures of channel scales: curves per stage, per class, distributions, learned kernels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from excite.explain.kernels import Learned
from excite.explain.scales import BINS, RANGE, SiteScales, last_of_stages
from excite.explain.style import PAGE, colour, dash, drawing, legend_above, save

ByNetwork = Mapping[str, Sequence[SiteScales]]
CLASSES_SHOWN = 5


def _grid(plt: Any, rows: int, columns: int, height: float, **shared: Any) -> tuple[Any, Any]:
    return plt.subplots(rows, columns, figsize=(PAGE, height * rows), squeeze=False, **shared)


def _limits(axis: Any, channels: int) -> None:
    axis.set_xlim(0, max(1, channels - 1))
    axis.set_xlabel("channel index")


def plot_scales(scales: ByNetwork, path: Path) -> Path:
    """Draw the mean scale over images by channel index: a panel per stage, a line per network, as EMCA's figure."""
    lasts = {label: last_of_stages(list(found)) for label, found in scales.items()}
    stages = sorted({stage for found in lasts.values() for stage in found})
    columns = min(len(stages), 2) if len(stages) in (2, 4) else min(len(stages), 3)
    rows = -(-len(stages) // columns)
    with drawing() as plt:
        figure, axes = _grid(plt, rows, columns, 1.9)
        for axis, stage in zip(axes.flat, stages, strict=False):
            channels = 0
            for i, (label, found) in enumerate(lasts.items()):
                site = found.get(stage)
                if site is None:
                    axis.plot([], [], color=colour(i), linestyle=dash(i), label=label)
                    continue
                channels = max(channels, len(site.mean))
                width = 1.0 if len(site.mean) <= 128 else 0.6
                axis.plot(site.mean.numpy(), color=colour(i), linestyle=dash(i), label=label, linewidth=width)
            axis.set_title(f"stage {stage} ({channels} channels)")
            _limits(axis, channels)
        for row in axes:
            row[0].set_ylabel("mean channel scale")
        for axis in axes.flat[len(stages) :]:
            axis.set_axis_off()
        legend_above(figure, axes.flat[0], 4)
        return save(figure, path)


def choose_classes(site: SiteScales, most: int = CLASSES_SHOWN) -> list[int]:
    """Return the first classes that were seen, spread over all of them."""
    assert site.per_class is not None
    seen = [i for i, row in enumerate(site.per_class) if not bool(row.isnan().any())]
    if len(seen) <= most:
        return seen
    return [seen[round(i * (len(seen) - 1) / (most - 1))] for i in range(most)]


def plot_classes(
    scales: ByNetwork, class_names: Mapping[str, Sequence[str]], path: Path, classes: Sequence[int] | None = None
) -> Path:
    """Draw each class's mean scale: a row per network, a panel per stage, a line per class (SE-Net, fig. 6).

    classes: their indices; default: five spread over those that were seen.
    """
    labelled = {n: last_of_stages([s for s in found if s.per_class is not None]) for n, found in scales.items()}
    labelled = {n: found for n, found in labelled.items() if found}
    columns = max(len(found) for found in labelled.values())
    with drawing() as plt:
        figure, axes = _grid(plt, len(labelled), columns, 1.8)
        for row, (network, found) in zip(axes, labelled.items(), strict=True):
            for axis, (stage, site) in zip(row, sorted(found.items()), strict=False):
                assert site.per_class is not None
                for i, c in enumerate(classes or choose_classes(site)):
                    names = class_names.get(network, ())
                    name = names[c] if c < len(names) else f"class {c}"
                    axis.plot(site.per_class[c].numpy(), color=colour(i), label=name, linewidth=0.8)
                axis.plot(site.mean.numpy(), color="#555555", linestyle=":", label="all images", linewidth=0.8)
                axis.set_title(f"{network}, stage {stage}" if columns < 4 else f"stage {stage}")
                _limits(axis, len(site.mean))
            row[0].set_ylabel("mean channel scale" if columns < 4 else f"{network}\nmean channel scale")
            for axis in row[len(found) :]:
                axis.set_axis_off()
        legend_above(figure, axes.flat[0], 6)
        return save(figure, path)


def plot_distribution(scales: ByNetwork, path: Path) -> Path:
    """Draw the distribution of all weights of each stage (blocks, channels and images), one line per network."""
    stages = sorted({s.stage for found in scales.values() for s in found})
    edges = np.linspace(*RANGE, BINS + 1)
    used = sum(s.histogram.numpy() for found in scales.values() for s in found)
    last = int(np.flatnonzero(used).max()) + 1
    with drawing() as plt:
        figure, axes = _grid(plt, 1, len(stages), 2.0)
        for axis, stage in zip(axes.flat, stages, strict=True):
            for i, (label, found) in enumerate(scales.items()):
                counts = [s.histogram.numpy() for s in found if s.stage == stage]
                if not counts:
                    axis.plot([], [], color=colour(i), label=label)
                    continue
                share = 100 * np.sum(counts, axis=0) / np.sum(counts)
                axis.stairs(share, edges, color=colour(i), label=label, linewidth=1.0)
                axis.stairs(share, edges, color=colour(i), fill=True, alpha=0.15)
            axis.set_title(f"stage {stage}")
            axis.set_xlim(0, max(1.0, edges[last]))
            axis.set_ylim(bottom=0)
            axis.set_xlabel("channel weight")
        axes.flat[0].set_ylabel("weights per bin (%)")
        legend_above(figure, axes.flat[0], 4)
        return save(figure, path)


def _bars(axis: Any, part: Learned, labels: Sequence[str]) -> None:
    positions = np.arange(len(part.values))
    axis.bar(positions, part.values, color=[colour(0) if v >= 0 else colour(1) for v in part.values], width=0.75)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_xticks(positions, labels)
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="x", visible=False)


def _ticks(part: Learned) -> list[str]:
    n = len(part.values)
    if part.kind == "kernel":
        return [f"{i - n // 2:+d}" if i != n // 2 else "0" for i in range(n)]
    if part.kind == "join":
        return ["local", "global"]
    return ["own" if i == n - 1 else f"−{n - 1 - i}" for i in range(n)]


def plot_learned(parts: Mapping[str, Sequence[Learned]], path: Path) -> Path:
    """Draw learned ECA kernels and EMCA fusion weights as bars: a row per network and kind, a panel per attention."""
    rows = [
        (n, k, [p for p in found if p.kind == k]) for n, found in parts.items() for k in ("kernel", "fusion", "join")
    ]
    rows = [row for row in rows if row[2]]
    most = 9
    chunks = [(n, k, found[i : i + most]) for n, k, found in rows for i in range(0, len(found), most)]
    columns = max(len(found) for _, _, found in chunks)
    titles = {"kernel": "kernel\nweight", "fusion": "fusion\nweight", "join": "join\nweight"}
    with drawing() as plt:
        figure, axes = _grid(plt, len(chunks), columns, 1.35, sharey="row")
        for row, (network, kind, found) in zip(axes, chunks, strict=True):
            for axis, part in zip(row, found, strict=False):
                _bars(axis, part, _ticks(part))
                axis.set_title(f"{part.stage}.{part.block}")
            for axis in row[len(found) :]:
                axis.set_axis_off()
            row[0].set_ylabel(f"{network}\n{titles[kind]}")
        figure.supxlabel(_explanation({k for _, k, _ in chunks}), fontsize=7)
        figure.suptitle("panel titles: stage.block", fontsize=7)
        return save(figure, path)


def _explanation(kinds: set[str]) -> str:
    texts = {
        "kernel": "kernels: offset from the channel itself",
        "fusion": "fusion: descriptors, own block last",
        "join": "join: the two gates",
    }
    return "; ".join(texts[k] for k in ("kernel", "fusion", "join") if k in kinds)
