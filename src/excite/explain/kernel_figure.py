"""The figure of what an attention learned: ECA kernels and EMCA fusion weights as bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from excite.common.plotting import NARROW, colour, drawing, figure_text, save
from excite.explain.kernels import Learned

if TYPE_CHECKING:
    from matplotlib.axes import Axes


PANELS = 6  # in a row
WIDE = 3  # numbers below a panel
TITLE = 12  # letters of an attention's name that a panel has room for: its end
TITLES = {
    "kernel": "ECA kernels by offset from the channel",
    "fusion": "EMCA fusion weights by descriptor (0: the block's own)",
    "join": "weights of the local and the global gate",
}


def plot_learned(parts: Mapping[str, Sequence[Learned]], path: Path) -> Path:
    """Draw the learned vectors: rows by network and kind, a panel per attention under its name."""
    rows = [
        (f"{network}: {title}", shown[i : i + PANELS])
        for network, all_parts in parts.items()
        for kind, title in TITLES.items()
        for shown in [[p for p in all_parts if p.kind == kind]]
        for i in range(0, len(shown), PANELS)
    ]
    columns = max(len(shown) for _, shown in rows)
    with drawing() as figure_of:
        figure = figure_of(figsize=(NARROW, 1.25 * len(rows)))
        parts_of_figure = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, (title, shown) in zip(parts_of_figure, rows, strict=True):
            part.suptitle(figure_text(title), fontsize=7, fontweight="bold")
            axes = part.subplots(1, columns, squeeze=False, sharey=True)[0]
            for axis, learned in zip(axes, shown, strict=False):
                _bars(axis, learned)
            for axis in axes[len(shown) :]:
                axis.set_axis_off()
            axes[0].set_ylabel("weight")
        return save(figure, path)


def _bars(axis: "Axes", part: Learned) -> None:
    positions = np.arange(len(part.values))
    axis.bar(positions, part.values, color=[colour(0) if v >= 0 else colour(1) for v in part.values], width=0.75)
    axis.axhline(0, color="black", linewidth=0.6)
    ticks = _ticks(part)
    if len(ticks) > WIDE:  # there is no room for all of them
        ticks = [text if text == "0" or i in (0, len(ticks) - 1) else "" for i, text in enumerate(ticks)]
    axis.set_xticks(positions, ticks, fontsize=6)
    axis.set_xlim(-0.7, len(part.values) - 0.3)
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="x", visible=False)
    name = part.site.removesuffix(".attention")
    axis.set_title(figure_text(name if len(name) <= TITLE else f"…{name[1 - TITLE :]}"), fontsize=7)


def _ticks(part: Learned) -> list[str]:
    n = len(part.values)
    if part.kind == "kernel":
        return [f"{i - n // 2:+d}" if i != n // 2 else "0" for i in range(n)]
    if part.kind == "join":
        return ["local", "global"]
    return ["0" if i == n - 1 else f"−{n - 1 - i}" for i in range(n)]
