"""Drawings as SVG text: a few shapes, and a layered layout for graphs of labelled boxes. Needs no library."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

CHARACTER = 7.0  # mean width of a character of 13 px
GAP = 18
ROW = 30


@dataclass(frozen=True)
class Box:
    """A labelled box: a line in bold, a line below it, and the colour of its left edge."""

    title: str
    note: str = ""
    colour: str = "#888888"

    @property
    def width(self) -> float:
        """Its width in pixels: what its longer line needs."""
        return max(len(self.title) * (CHARACTER + 0.6), len(self.note) * (CHARACTER - 0.6)) + 26

    @property
    def height(self) -> float:
        """Its height in pixels."""
        return 42 if self.note else 28


@dataclass
class Drawing:
    """Shapes on a white ground, so that a page may be dark. title, about: what is read out instead of the picture."""

    title: str
    about: str
    parts: list[str] = field(default_factory=list)
    right: float = 0
    bottom: float = 0

    def reach(self, x: float, y: float) -> None:
        """Make the drawing large enough for a point."""
        self.right, self.bottom = max(self.right, x), max(self.bottom, y)

    def text(
        self, x: float, y: float, words: str, *, size: int = 13, bold: bool = False, anchor: str = "middle"
    ) -> None:
        """Write one line; y: its base line."""
        length = len(words) * size * 0.54
        self.reach(x + {"start": length, "middle": length / 2, "end": 0}[anchor], y + 6)
        weight = ' font-weight="600"' if bold else ""
        at = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        self.parts.append(f"<text {at}{weight}>{escape(words)}</text>")

    def rectangle(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> None:
        """Draw a rounded rectangle from its upper left corner."""
        self.reach(x + width, y + height)
        at = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5"'
        self.parts.append(f'<rect {at} fill="{fill}" stroke="{stroke}"/>')

    def path(self, d: str, colour: str = "#555555", *, arrow: bool = True, width: float = 1.4) -> None:
        """Draw a line; d: as SVG writes paths."""
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width}"{end}/>')

    def box(self, box: Box, x: float, y: float) -> None:
        """Draw a box whose upper edge has its middle at (x, y)."""
        left = x - box.width / 2
        self.rectangle(left, y, box.width, box.height, "#ffffff", "#999999")
        self.rectangle(left, y, 7, box.height, box.colour)
        self.text(x + 3, y + 18, box.title, bold=True)
        if box.note:
            self.text(x + 3, y + 34, box.note, size=12)

    def legend(self, entries: Mapping[str, str], y: float) -> None:
        """Name colours in a row."""
        x = 12.0
        for words, colour in entries.items():
            self.rectangle(x, y - 10, 12, 12, colour)
            self.text(x + 17, y, words, size=12, anchor="start")
            x += 17 + len(words) * 6.6 + 18

    def source(self) -> str:
        """Return the SVG document."""
        width, height = self.right + 12, self.bottom + 10
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
                f'height="{height:.0f}" role="img" aria-label={quoteattr(self.title)} '
                'font-family="Roboto, Helvetica, Arial, sans-serif" fill="#222222">',
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self.about)}</desc>",
                '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555555"/></marker></defs>',
                f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#ffffff"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


@dataclass
class _Place:
    """A box in a row, or the point (box: None) where an edge passes it."""

    box: Box | None
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    x: float = 0

    @property
    def width(self) -> float:
        return self.box.width if self.box else 8


def draw_graph(drawing: Drawing, boxes: Sequence[Box], edges: Iterable[tuple[int, int]], top: float) -> None:
    """Draw boxes in rows, sources above their targets; edges (from, to) with from < to, as the order of running is."""
    links = sorted(set(edges))
    level = [0] * len(boxes)
    for start, end in sorted(links, key=lambda link: link[1]):
        level[end] = max(level[end], level[start] + 1)
    places, rows, routes = _rows(boxes, links, level)
    _order(places, rows)
    _spread(places, rows)
    left = min(p.x - p.width / 2 for p in places) - 12
    for place in places:
        place.x -= left
    height = [max((places[i].box.height for i in row if places[i].box), default=0) for row in rows]  # type: ignore[union-attr]  # filtered
    y = [top + sum(height[:r]) + ROW * r for r in range(len(rows))]
    drawing.reach(max(p.x + p.width / 2 for p in places), y[-1] + height[-1])
    for route in routes:
        drawing.path(_curve(places, route, level[route[0]], y, height))
    for place, row in zip(places, level, strict=False):
        assert place.box is not None
        drawing.box(place.box, place.x, y[row])


def _rows(
    boxes: Sequence[Box], links: Sequence[tuple[int, int]], level: Sequence[int]
) -> tuple[list[_Place], list[list[int]], list[list[int]]]:
    """The places, those of each row, and each edge as the places that it runs through."""
    places = [_Place(box) for box in boxes]
    rows: list[list[int]] = [[] for _ in range(max(level) + 1)]
    for i, row in enumerate(level):
        rows[row].append(i)
    routes = []
    for start, end in links:
        route = [start]
        for row in range(level[start] + 1, level[end]):
            rows[row].append(len(places))
            route.append(len(places))
            places.append(_Place(None))
        route.append(end)
        for a, b in pairwise(route):
            places[a].below.append(b)
            places[b].above.append(a)
        routes.append(route)
    return places, rows, routes


def _order(places: Sequence[_Place], rows: Sequence[list[int]]) -> None:
    """Sort each row by the mean position of its neighbours, down and up again."""
    rank = {i: float(at) for row in rows for at, i in enumerate(row)}

    def mean(i: int, near: Sequence[int]) -> float:
        return sum(rank[j] for j in near) / len(near) if near else rank[i]

    for sweep in range(6):
        for row in rows if sweep % 2 == 0 else list(reversed(rows)):
            means = {i: mean(i, places[i].above if sweep % 2 == 0 else places[i].below) for i in row}
            row.sort(key=means.__getitem__)
            rank.update((i, float(at)) for at, i in enumerate(row))


def _spread(places: Sequence[_Place], rows: Sequence[list[int]]) -> None:
    """Give each place its x: near the mean of its neighbours, with room between."""
    for sweep in range(12):
        for row in rows if sweep % 2 == 0 else list(reversed(rows)):
            wish = []
            for i in row:
                near = [*places[i].above, *places[i].below]
                weights = [1 if places[j].box else 0.1 for j in near]  # boxes in line, passing edges around them
                total = sum(w * places[j].x for w, j in zip(weights, near, strict=True))
                wish.append(total / sum(weights) if near else places[i].x)
            x = list(wish)
            for at in range(1, len(row)):
                room = (places[row[at - 1]].width + places[row[at]].width) / 2 + GAP
                x[at] = max(x[at], x[at - 1] + room)
            shift = sum(a - b for a, b in zip(wish, x, strict=True)) / len(row)
            for i, value in zip(row, x, strict=True):
                places[i].x = value + shift


def _curve(
    places: Sequence[_Place], route: Sequence[int], row: int, y: Sequence[float], height: Sequence[float]
) -> str:
    """An edge as an SVG path: curves between rows, straight beside boxes."""
    first = places[route[0]]
    assert first.box is not None
    x, at = first.x, y[row] + first.box.height
    d = f"M{x:.1f} {at:.1f}"
    for step, i in enumerate(route[1:], row + 1):
        to = places[i]
        half = (y[step] - at) / 2
        d += f" C{x:.1f} {at + half:.1f} {to.x:.1f} {y[step] - half:.1f} {to.x:.1f} {y[step]:.1f}"
        x, at = to.x, y[step]
        if to.box is None:
            at += height[step]
            d += f" V{at:.1f}"
    return d
