"""Pictures: detections over an image, and precision-recall curves."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from excite.common.files import replacing
from excite.common.plotting import figure_text, save
from excite.common.tables import printable
from excite.detect.data.segments import decode
from excite.detect.metrics import Metrics
from excite.detect.results import Result

Box = tuple[float, float, float, float]
LONGEST = 60  # characters of a name
SHORTEST = 480  # smaller images are enlarged to this side, or the names would cover them


def colour_of(label: int) -> tuple[int, int, int]:
    """Return a colour per label; golden-ratio steps of hue keep neighbours apart."""
    r, g, b = colorsys.hsv_to_rgb((0.02 + 0.618034 * label) % 1.0, 0.85, 0.95)
    return round(255 * r), round(255 * g), round(255 * b)


def draw_detections(
    image: Image.Image, results: Sequence[Result], names: dict[int, str], *, threshold: float = 0.5
) -> Image.Image:
    """Draw boxes, masks, names and scores of the detections at or above `threshold` over an image.

    results: of this image, COCO's format; names: category id -> name.
    """
    shown = sorted((r for r in results if r["score"] >= threshold), key=lambda r: r["score"])
    factor = max(1.0, SHORTEST / min(image.size))
    width, height = image.size
    canvas = np.asarray(image.convert("RGB"), dtype=np.float32).copy()
    labels = {category: i for i, category in enumerate(sorted(names), start=1)}
    for result in shown:
        if "segmentation" in result:
            mask = decode(result["segmentation"], height, width).astype(bool)
            canvas[mask] = 0.55 * canvas[mask] + 0.45 * np.array(colour_of(labels[result["category_id"]]))
    picture = Image.fromarray(canvas.astype(np.uint8))
    if factor > 1:
        picture = picture.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
    _boxes(picture, shown, names, labels, factor)
    return picture


def _boxes(
    picture: Image.Image, shown: Sequence[Result], names: dict[int, str], labels: dict[int, int], factor: float
) -> None:
    pen = ImageDraw.Draw(picture)
    size = max(12, round(min(picture.size) / 34))
    font = ImageFont.load_default(size)
    line = max(2, size // 7)
    for result in shown:
        x, y, w, h = (factor * v for v in result["bbox"])
        pen.rectangle([x, y, x + w, y + h], outline=colour_of(labels[result["category_id"]]), width=line)
    labelled: list[Box] = []
    # Names come after all boxes, so that no box runs through a name; the surest first, as it takes the best spot.
    for result in reversed(shown):
        x, y, w, h = (factor * v for v in result["bbox"])
        colour = colour_of(labels[result["category_id"]])
        text = f"{printable(names[result['category_id']])[:LONGEST]} {100 * result['score']:.0f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        tall, wide = bottom - top + 4, right - left + 6
        label = free_place((x, y, w, h), (wide, tall), picture.size, labelled)
        labelled.append(label)
        pen.rectangle(label, fill=colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
        pen.text((label[0] + 3 - left, label[1] + 2 - top), text, fill="black" if dark else "white", font=font)


def free_place(box: Box, size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Return where a name goes: above its box, else below, at the right or inside, wherever no other name is."""
    (x, y, w, h), (wide, tall) = box, size
    spots = [(x, y - tall), (x, y + h), (x + w - wide, y - tall), (x + w - wide, y + h), (x, y), (x, y + h - tall)]
    boxes = []
    for left, top in spots:
        left = min(max(0.0, left), max(0.0, picture[0] - wide))
        top = min(max(0.0, top), max(0.0, picture[1] - tall))
        boxes.append((left, top, left + wide, top + tall))
    free = [p for p in boxes if not any(overlaps(p, other) for other in taken)]
    return (free or boxes)[0]


def overlaps(a: Box, b: Box) -> bool:
    """True if two boxes share an area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def save_image(picture: Image.Image, path: Path) -> None:
    """Write an image under a temporary name, then rename it."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG" if path.suffix == ".png" else "JPEG", quality=90)


def draw_curves(metrics: Metrics, path: Path, *, most: int = 12) -> None:
    """Draw precision over recall at IoU 0.5, one panel per kind and one curve per category.

    With more categories than `most`, those with most objects are named and the others are grey.
    """
    from matplotlib.figure import Figure

    kinds = [k for k in ("box", "mask") if k in metrics]
    figure = Figure(figsize=(5.2 * len(kinds), 4.4), layout="constrained")
    recall = np.linspace(0, 1, 101)
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds))), kinds, strict=True):
        rows = sorted(metrics[kind]["per_class"], key=lambda r: -r["objects"])
        for i, row in enumerate(rows):
            curve = np.clip(metrics[kind]["curves"][row["class"]], 0, 1)
            named = i < most
            text = f"{figure_text(row['class'])} ({100 * row['AP50']:.1f})"
            style = {"label": text} if named else {"color": "0.85", "zorder": 1}
            axes.plot(recall, curve, linewidth=1.6 if named else 0.8, **style)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(f"{kind}: AP50 {100 * metrics[kind]['AP50']:.1f}")
        axes.grid(alpha=0.3)
        if rows:
            axes.legend(fontsize=8, loc="lower left", title="category (AP50)", title_fontsize=8)
    save(figure, path, dpi=100)
