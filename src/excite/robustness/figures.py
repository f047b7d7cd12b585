"""The figures of robustness: a heat map of errors, probe curves, a contact sheet of the corruptions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from excite.common.plotting import (
    COLUMN,
    PAGE,
    colour,
    dash,
    drawing,
    figure_text,
    first_of_rows,
    legend_above,
    panels,
    save,
)
from excite.robustness.probes import PROBES
from excite.robustness.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


GROUPS = {"noise": 3, "blur": 4, "weather": 4, "digital": 4}


def _readable(family: str) -> str:
    return family.replace("_", " ").replace("jpeg", "JPEG")


def plot_heat_map(scores: Mapping[str, Scores], path: Path) -> Path:
    """Draw top-1 errors: families down, the clean error and severities across, a block of columns per network."""
    families = list(next(iter(scores.values())).errors)
    severities = sorted(next(iter(scores.values())).errors[families[0]])
    with drawing() as figure_of:
        width = min(PAGE, 1.5 + 1.75 * len(scores))
        figure = figure_of(figsize=(max(COLUMN, width), 0.9 + 0.21 * len(families)))
        axes = figure.subplots(1, len(scores), squeeze=False, sharey=True)
        for axis, (label, result) in zip(axes[0], scores.items(), strict=True):
            rows = [[result.clean_error, *(result.errors[f][s] for s in severities)] for f in families]
            values = 100 * np.array(rows)
            image = axis.imshow(values, cmap="magma_r", vmin=0, vmax=100, aspect="auto")
            for (i, j), value in np.ndenumerate(values):
                axis.text(
                    j, i, f"{value:.0f}", ha="center", va="center", fontsize=6, color="black" if value < 50 else "white"
                )
            axis.axvline(0.5, color="white", linewidth=2)
            axis.set_xticks(range(len(severities) + 1), ["clean", *map(str, severities)])
            axis.get_xticklabels()[0].set(rotation=90)  # five letters in the width of a digit
            axis.set_yticks(range(len(families)), [_readable(f) for f in families])
            axis.set_xlabel("severity")
            name = figure_text(label) if len(scores) < 4 else _folded(figure_text(label))
            axis.set_title(f"{name}\nmean {100 * result.mean_error:.1f} %", fontsize=8 if len(scores) < 4 else 7)
            axis.grid(visible=False)
            axis.tick_params(length=0)
        figure.colorbar(image, ax=axes, label="top-1 error (%)", fraction=0.05)
        return save(figure, path)


def _folded(label: str) -> str:
    # Many panels are narrow: names go over two lines, broken before their last word.
    words = label.rsplit("_", 1)
    return "\n".join(words) if len(words) > 1 else f"{label}\n"


def plot_probes(probes: Mapping[str, Mapping[str, Mapping[float, float]]], path: Path) -> Path:
    """Draw accuracy against strength: a panel per probe, a line per network.

    probes: probe -> network -> strength -> error.
    """
    with drawing() as figure_of:
        figure, axes = panels(figure_of, len(probes), 2.1, sharey=True)
        for axis, (name, networks) in zip(axes, probes.items(), strict=True):
            for i, (label, errors) in enumerate(networks.items()):
                accuracy = [100 * (1 - e) for e in errors.values()]
                axis.plot(
                    list(errors),
                    accuracy,
                    "o",
                    color=colour(i),
                    linestyle=dash(i),
                    markersize=2.5,
                    label=figure_text(label),
                )
            axis.set_title(_readable(name))
            axis.set_xlabel(PROBES[name].axis.replace(" (", "\n("))
            axis.set_ylim(0, 100)
        for axis in first_of_rows(axes):
            axis.set_ylabel("top-1 accuracy (%)")
        legend_above(figure, axes[0])
        return save(figure, path)


def plot_sheet(
    pixels: torch.Tensor, families: Sequence[str], change: Callable[[str, int], torch.Tensor], path: Path
) -> Path:
    """Draw one image `[3 h w]` under every family (rows) and severity (columns): what the numbers are about."""
    half = -(-len(families) // 2) if len(families) > 5 else len(families)
    blocks = [families[:half], families[half:]] if half < len(families) else [families]
    with drawing() as figure_of:
        figure = figure_of(figsize=(PAGE if len(blocks) == 2 else COLUMN, 0.52 * half + 0.25))
        parts = figure.subfigures(1, len(blocks), squeeze=False)[0]
        for part, names in zip(parts, blocks, strict=True):
            axes = part.subplots(half, 6, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
            for row, family in zip(axes, names, strict=False):
                _sheet_row(row, [pixels, *(change(family, s) for s in range(1, 6))])
                row[0].set_ylabel(_readable(family).replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=6)
            for axis, title in zip(axes[0], ["clean", "1", "2", "3", "4", "5"], strict=True):
                axis.set_title(title, fontsize=6)
            for row in axes[len(names) :]:
                for axis in row:
                    axis.set_axis_off()
        return save(figure, path)


def _sheet_row(axes: Sequence["Axes"], images: Sequence[torch.Tensor]) -> None:
    for axis, image in zip(axes, images, strict=True):
        axis.imshow(image.expand(3, -1, -1).permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
