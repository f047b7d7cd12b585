"""How our plots look: one column of a paper is 3.4 inches, two are 7; colours that colour-blind readers tell apart."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excite.common.extras import require
from excite.common.files import replacing
from excite.common.tables import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Any: matplotlib is an extra, so its classes are not named here.

COLUMN, PAGE = 3.4, 7.0
NARROW = 4.8  # a page's width on a phone: its letters are still nine pixels high there

LEGEND_LINE = 0.14  # inches

# Okabe and Ito's palette, in an order that keeps neighbours apart; the same network keeps its colour in all figures.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))

SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.0,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}


@contextmanager
def drawing() -> Iterator["type[Figure]"]:
    """Yield the class of figures; they have our settings and no window, and pyplot (its backend too) stays as it is."""
    require("matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type, unused-ignore]  # its keys are a Literal
        yield Figure


def colour(i: int) -> str:
    """Return the colour of the i-th network."""
    return COLOURS[i % len(COLOURS)]


def dash(i: int) -> Any:
    """Return the line style of the i-th network, so that a grey print still tells them apart."""
    return DASHES[(i // len(COLOURS)) % len(DASHES)]


def figure_text(name: object) -> str:
    """Return a name that somebody else chose, as figures draw it: in one line, a dollar sign as itself."""
    return printable(name).replace("$", r"\$")


def in_lines(name: object, width: int) -> str:
    """Return a name as figures draw it, in lines of at most `width` letters; where it can, it breaks at a mark."""
    return "\n".join(map(figure_text, _broken(printable(name), width)))


def _broken(text: str, width: int) -> list[str]:
    lines = [""]
    for part in re.findall(rf"[^ ;,@/]{{1,{width}}}[;,@/]? ?|[ ;,@/]", text):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def save(figure: Any, path: str | Path, **options: Any) -> Path:
    """Write a figure atomically; the suffix names the format. options: `savefig`'s. Raises ExciteError."""
    with replacing(path) as temporary:
        figure.savefig(temporary, **options)
    return Path(path)


def legend_above(figure: Any, axes: Any) -> None:
    """Put one legend for all panels above them, in as many columns as the figure's width has room for.

    A legend of more than two lines makes the figure higher, so that the panels keep their height.
    """
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        room = int(figure.get_figwidth() * 17 / (max(map(len, labels)) + 8))
        columns = max(1, min(room, len(labels)))
        labels = ["\n".join(_broken(label, int(figure.get_figwidth() * 17) - 16)) for label in labels]
        lines = -(-sum(label.count("\n") + 1 for label in labels) // columns)
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * max(0, lines - 2))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def log_scale(axis: Any) -> None:
    """Make the y axis logarithmic, once everything is drawn, with plain decimals at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    wide = low > 0 and high / low > 10
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def panels(
    figure_of: "type[Figure]", count: int, height: float, *, width: float = PAGE, most: int = 4, **shared: Any
) -> tuple[Any, list[Any]]:
    """Return a figure and its `count` panels in even rows of at most `most`; what is left over is hidden."""
    rows = -(-count // most)
    columns = -(-count // rows)
    figure = figure_of(figsize=(width, height * rows + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis in axes.flat[:count]:  # shared axes, too, are read where they stand
        axis.tick_params(axis="x", labelbottom=True)
    return figure, list(axes.flat[:count])


def first_of_rows(axes: Sequence[Any]) -> list[Any]:
    """Return the panels at the left edge: the ones that carry the y label."""
    return [axis for axis in axes if axis.get_subplotspec().is_first_col()]


def last_of_columns(axes: Sequence[Any]) -> list[Any]:
    """Return the lowest panel of each column: the ones that carry the x label."""
    lowest = {axis.get_subplotspec().colspan.start: axis for axis in axes}
    return list(lowest.values())
