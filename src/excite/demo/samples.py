"""Pictures to try networks on, drawn here: flat scenes of things that CIFAR-10 has classes for, and a digit."""

from collections.abc import Callable
from itertools import pairwise

from PIL import Image, ImageDraw

SIDE = 128
FINE = 4  # drawn this much larger, then shrunk, which smooths the edges

Point = tuple[float, float]
Colour = str


class Canvas:
    """Flat shapes on a square of 100 by 100, the origin at the top left."""

    def __init__(self, background: Colour) -> None:
        self.scale = SIDE * FINE / 100
        self.image = Image.new("RGB", (SIDE * FINE, SIDE * FINE), background)
        self.pen = ImageDraw.Draw(self.image)

    def _scaled(self, points: tuple[Point, ...]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def area(self, colour: Colour, *points: Point) -> None:
        """Fill a polygon."""
        self.pen.polygon(self._scaled(points), fill=colour)

    def disc(self, colour: Colour, centre: Point, width: float, height: float) -> None:
        """Fill an ellipse."""
        (x, y), w, h = centre, width / 2, height / 2
        (left, top), (right, bottom) = self._scaled(((x - w, y - h), (x + w, y + h)))
        self.pen.ellipse((left, top, right, bottom), fill=colour)

    def stroke(self, colour: Colour, width: float, *points: Point) -> None:
        """Draw a line with round ends through points."""
        for a, b in pairwise(self._scaled(points)):
            self.pen.line((a, b), fill=colour, width=round(width * self.scale))
        for point in points:
            self.disc(colour, point, width, width)

    def shade(
        self, top: tuple[int, int, int], bottom: tuple[int, int, int], start: float = 0, end: float = 100
    ) -> None:
        """Fill a band with a gradient, from height `start` to `end`."""
        first, last = round(start * self.scale), round(end * self.scale)
        for y in range(first, last):
            share = (y - first) / (last - first)
            red, green, blue = (round(a + share * (b - a)) for a, b in zip(top, bottom, strict=True))
            self.pen.line(((0, y), (self.image.width, y)), fill=(red, green, blue))

    def picture(self) -> Image.Image:
        """Return what was drawn, `SIDE` pixels wide and high."""
        return self.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _ship() -> Canvas:
    canvas = Canvas("white")
    canvas.shade((150, 190, 225), (215, 230, 240), 0, 58)
    canvas.shade((40, 85, 125), (20, 50, 85), 58, 100)
    canvas.area("#f4f4f2", (30, 44), (66, 44), (68, 56), (28, 56))
    canvas.area("#e9e9e6", (38, 34), (58, 34), (60, 44), (36, 44))
    canvas.area("#b8402a", (44, 20), (53, 20), (54, 34), (43, 34))
    canvas.area("#22262e", (44, 20), (53, 20), (53, 24), (44, 24))
    canvas.area("#2b3442", (8, 56), (92, 56), (84, 70), (17, 70))
    canvas.area("#a8382a", (14, 66), (86.5, 66), (84, 70), (17, 70))
    for x in range(34, 64, 6):
        canvas.disc("#3a5570", (x, 50), 3, 3)
    return canvas


def _airplane() -> Canvas:
    canvas = Canvas("white")
    canvas.shade((95, 150, 210), (185, 215, 240))
    canvas.disc("#f2f6fa", (20, 84), 46, 14)
    canvas.disc("#f2f6fa", (84, 90), 40, 12)
    canvas.area("#c5ccd4", (46, 47), (58, 46), (44, 22), (36, 22))
    canvas.area("#e6eaee", (6, 50), (14, 44), (82, 43), (95, 50), (82, 55), (14, 54))
    canvas.area("#aeb7c1", (42, 52), (60, 52), (38, 80), (28, 80))
    canvas.area("#2f5d94", (7, 49), (4, 28), (12, 28), (22, 45))
    canvas.area("#aeb7c1", (9, 51), (18, 51), (8, 60), (3, 60))
    canvas.area("#35424f", (85, 45), (91, 47.5), (84, 48))
    for x in range(28, 80, 6):
        canvas.disc("#51667c", (x, 47.5), 2.4, 2.4)
    return canvas


def _automobile() -> Canvas:
    canvas = Canvas("white")
    canvas.shade((190, 205, 215), (225, 228, 225), 0, 55)
    canvas.area("#6f8f5f", (0, 48), (100, 44), (100, 62), (0, 62))
    canvas.shade((115, 115, 118), (80, 80, 84), 62, 100)
    canvas.disc("#3c3c40", (50, 82), 84, 8)
    canvas.area("#b5231f", (25, 56), (36, 36), (64, 36), (78, 55))
    canvas.area("#c82a25", (6, 76), (7, 60), (24, 54), (80, 54), (93, 60), (94, 76))
    canvas.area("#b9d4e4", (31, 54), (39, 40), (49, 40), (49, 54))
    canvas.area("#b9d4e4", (53, 54), (53, 40), (62, 40), (71, 54))
    canvas.area("#f4e6a8", (88, 60), (93, 62), (93, 66), (88, 65))
    for x in (27, 73):
        canvas.disc("#1c1c1e", (x, 76), 19, 19)
        canvas.disc("#c9c9cc", (x, 76), 9, 9)
    return canvas


def _frog() -> Canvas:
    canvas = Canvas("white")
    canvas.shade((120, 100, 65), (85, 70, 45))
    canvas.disc("#5d7a2c", (24, 74), 34, 22)
    canvas.disc("#5d7a2c", (76, 74), 34, 22)
    canvas.disc("#7a9a3a", (50, 62), 58, 48)
    canvas.disc("#c9c98a", (50, 72), 36, 24)
    canvas.disc("#7a9a3a", (50, 42), 46, 30)
    for x in (36, 64):
        canvas.disc("#86a842", (x, 30), 17, 17)
        canvas.disc("#e8c23c", (x, 29), 11, 11)
        canvas.disc("#16160f", (x, 29), 4, 9)
    canvas.stroke("#4a5f22", 1.6, (34, 47), (42, 51), (50, 52), (58, 51), (66, 47))
    for x in (20, 32, 68, 80):
        canvas.disc("#6d8b33", (x, 86), 14, 6)
    return canvas


def _bird() -> Canvas:
    canvas = Canvas("white")
    canvas.shade((205, 215, 200), (150, 170, 130))
    canvas.stroke("#6b5137", 5, (0, 80), (100, 74))
    canvas.area("#4d3b2c", (24, 60), (4, 76), (10, 82), (36, 68))
    canvas.disc("#7a5c42", (48, 54), 52, 38)
    canvas.disc("#d8b48a", (54, 61), 34, 24)
    canvas.disc("#7a5c42", (70, 34), 26, 24)
    canvas.area("#4d3b2c", (28, 46), (56, 48), (48, 64), (18, 66))
    canvas.area("#e0a030", (81, 31), (95, 36), (81, 39))
    canvas.disc("#f7f3e8", (74, 32), 6, 6)
    canvas.disc("#15130f", (75, 32), 3.4, 3.4)
    for x in (48, 56):
        canvas.stroke("#b07a30", 2, (x, 70), (x, 77))
    return canvas


def _digit() -> Canvas:
    canvas = Canvas("black")
    canvas.stroke("white", 10, (32, 22), (68, 22), (46, 46), (60, 50), (68, 62), (62, 76), (46, 82), (30, 74))
    return canvas


SAMPLES: dict[str, Callable[[], Canvas]] = {
    "ship": _ship,
    "airplane": _airplane,
    "car": _automobile,
    "frog": _frog,
    "bird": _bird,
    "digit": _digit,
}


def sample(name: str) -> Image.Image:
    """Return a sample by its name in `SAMPLES`, RGB of `SIDE` by `SIDE` pixels, the same on every call."""
    return SAMPLES[name]().picture()
