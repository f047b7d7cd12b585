"""The Grad-CAM figure: images in rows, the top classes of every network beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from excite.common.plotting import PAGE, drawing, figure_text, save
from excite.explain.cam import CamResult


@dataclass
class CamRow:
    """One image seen by one network: `pixels` `[3 h w]` in [0, 1] and the classes with their names."""

    image: str
    network: str
    pixels: torch.Tensor
    results: Sequence[CamResult]
    names: Sequence[str]


def _short(text: str, most: int = 19) -> str:
    return figure_text(text if len(text) <= most else text[: most - 1] + "…")


def plot_cams(rows: Sequence[CamRow], path: Path) -> Path:
    """Draw every row: the image as the network gets it, then one overlay per class with its probability."""
    columns = 1 + max(len(row.results) for row in rows)
    several = len({row.network for row in rows}) > 1
    side = min(1.2, PAGE / columns)
    with drawing() as figure_of:
        figure = figure_of(figsize=(side * columns + 0.5, (side + 0.2) * len(rows) + 0.4))
        axes = figure.subplots(len(rows), columns, squeeze=False)
        shown = None
        for line, row in zip(axes, rows, strict=True):
            for axis in line:
                axis.set_axis_off()
            picture = row.pixels.permute(1, 2, 0).numpy()
            line[0].imshow(picture, interpolation="nearest")
            line[0].set_title(_short(row.image) + (f"\n{_short(row.network)}" if several else ""), fontsize=7)
            for axis, result, name in zip(line[1:], row.results, row.names, strict=False):
                axis.imshow(picture, interpolation="nearest")
                shown = axis.imshow(result.heat.numpy(), cmap="inferno", alpha=0.55, vmin=0, vmax=1)
                axis.set_title(f"{_short(name)}\n{100 * result.probability:.1f} %", fontsize=7)
        if shown is not None:
            bar = figure.colorbar(shown, ax=axes, fraction=0.025, aspect=30, ticks=[0, 0.5, 1])
            bar.set_label("Grad-CAM, share of its maximum", fontsize=7)
            bar.ax.tick_params(labelsize=6)
        return save(figure, path)
