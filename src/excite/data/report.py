"""What a data set holds, and what is wrong with it: for people, before they train."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from excite.common.plotting import figure_text, save
from excite.data.bundle import DataBundle, Images, chosen
from excite.data.preprocess import Preprocess, UnreadableImageError
from excite.data.splits import labels_of

LOOKED_AT = 1000  # images of a split that are decoded: always the same scattered ones
FEW = 10  # images of a class in training
UNEVEN = 10  # times more images in the largest class than in the smallest


@dataclass
class SplitReport:
    """One split: images and images per class; of those looked at: the sides' least, median and most, and damaged ones.

    prints: of the pixels of each image looked at, its name and label; disputed: pairs of images of the same pixels and
    two labels.
    """

    images: int
    classes: list[int]
    looked_at: int = 0
    widths: tuple[int, int, int] | None = None
    heights: tuple[int, int, int] | None = None
    unreadable: list[str] = field(default_factory=list)
    prints: dict[str, tuple[str, int]] = field(default_factory=dict)
    disputed: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class DataReport:
    """What was found of a data set; wrong: a sentence for each thing that may spoil a training."""

    spec: str
    class_names: list[str]
    size: int
    notes: list[str]
    result: str
    splits: dict[str, SplitReport]
    wrong: list[str]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain containers, without the prints."""
        splits = {
            name: {
                "images": split.images,
                "per_class": dict(zip(self.class_names, split.classes, strict=True)),
                "looked_at": split.looked_at,
                "widths": split.widths,
                "heights": split.heights,
                "unreadable": split.unreadable,
            }
            for name, split in self.splits.items()
        }
        return {
            "data": self.spec,
            "classes": self.class_names,
            "size": self.size,
            "notes": self.notes,
            "result": self.result,
            "splits": splits,
            "wrong": self.wrong,
        }


def look(bundle: DataBundle, limit: int = LOOKED_AT) -> DataReport:
    """Look at up to `limit` images of each split, and count all labels."""
    parts: dict[str, Images] = {"train": bundle.train, bundle.val_name: bundle.val, bundle.test_name: bundle.test}
    splits = {name: _split(images, bundle.num_classes, limit) for name, images in parts.items()}
    wrong = _wrong(bundle, splits)
    return DataReport(
        bundle.spec,
        bundle.class_names,
        bundle.default_preprocess["size"],
        bundle.notes,
        bundle.describe(),
        splits,
        wrong,
    )


def _split(images: Images, classes: int, limit: int) -> SplitReport:
    labels = labels_of(images)
    counts = np.bincount([label for label in labels if label >= 0], minlength=classes).tolist()
    report = SplitReport(len(images), counts)
    sides: list[tuple[int, int]] = []
    for index in chosen(len(images), limit):
        report.looked_at += 1
        try:
            image, label = images[index]
        except UnreadableImageError as error:
            report.unreadable.append(error.name)
            continue
        pixels = image.numpy() if isinstance(image, Tensor) else np.asarray(image)
        height, width = pixels.shape[-2:] if isinstance(image, Tensor) else pixels.shape[:2]
        sides.append((width, height))
        mark = hashlib.sha256(pixels.tobytes()).hexdigest()
        earlier = report.prints.setdefault(mark, (images.name(index), label))
        if earlier[1] != label:
            report.disputed.append((earlier[0], images.name(index)))
    if sides:
        report.widths, report.heights = (
            (min(values), round(median(values)), max(values)) for values in zip(*sides, strict=True)
        )
    return report


def _wrong(bundle: DataBundle, splits: Mapping[str, SplitReport]) -> list[str]:
    names, train = bundle.class_names, splits["train"]
    wrong = []
    if len(names) < 2:
        wrong.append(f"there is one class ({names[0]}); training needs two or more")
    for name, split in splits.items():
        lacking = [names[i] for i, count in enumerate(split.classes) if not count]
        if lacking:
            wrong.append(f"{name} has no image of {len(lacking)} classes: {', '.join(lacking[:5])}")
        if split.unreadable:
            listed = ", ".join(split.unreadable[:3])
            wrong.append(
                f"{name}: {len(split.unreadable)} of {split.looked_at} images looked at cannot be read: {listed}; "
                "remove them, or train with --skip-unreadable"
            )
        again = len(split.prints) + len(split.unreadable)
        if again < split.looked_at:
            wrong.append(
                f"{name}: {split.looked_at - again} of {split.looked_at} images looked at are copies of others there"
            )
        disputed = list(split.disputed)
        if name != "train":
            both = [split.prints[mark][0] for mark in split.prints if mark in train.prints]
            shared = ((own, train.prints[mark]) for mark, own in split.prints.items() if mark in train.prints)
            disputed += [(known[0], own[0]) for own, known in shared if own[1] != known[1]]
            if both:
                wrong.append(
                    f"{len(both)} images of {name} are training images too, such as {both[0]}: scores on them are too "
                    "good"
                )
        if disputed:
            wrong.append(
                f"{name}: {len(disputed)} images have two labels: {disputed[0][0]} and {disputed[0][1]} are the same "
                "picture in two classes"
            )
    present = [count for count in train.classes if count]
    if present and max(present) > UNEVEN * min(present):
        most, least = names[train.classes.index(max(present))], names[train.classes.index(min(present))]
        wrong.append(
            f"classes are uneven: {max(present)} training images of {most}, {min(present)} of {least}; look at the "
            "accuracy per class (excite test)"
        )
    few = [names[i] for i, count in enumerate(train.classes) if 0 < count < FEW]
    if few:
        wrong.append(f"{len(few)} classes have fewer than {FEW} training images: {', '.join(few[:5])}")
    doubled = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if doubled:
        wrong.append(f"classes whose names differ in the case of letters only: {', '.join(doubled[:5])}")
    return wrong


def draw_contact_sheet(bundle: DataBundle, path: Path, *, classes: int = 12, each: int = 8) -> None:
    """Draw the first training images of the first classes as the network sees them before normalisation, a row each."""
    from matplotlib.figure import Figure

    how = Preprocess.from_dict(bundle.default_preprocess)
    rows: dict[int, list[Tensor]] = {label: [] for label in range(min(classes, bundle.num_classes))}
    for index, label in enumerate(labels_of(bundle.train)):
        row = rows.get(label)
        if row is not None and len(row) < each:
            try:
                row.append(how.image(bundle.train[index][0]))
            except UnreadableImageError:
                continue
        if all(len(row) == each for row in rows.values()):
            break
    blank = torch.full((3, how.size, how.size), 255, dtype=torch.uint8)
    lines = [torch.cat([*row, *[blank] * (each - len(row))], dim=2) for row in rows.values()]
    sheet = torch.cat(lines, dim=1).permute(1, 2, 0).numpy()
    figure = Figure(figsize=(1.2 + 0.9 * each, 0.9 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    names = [figure_text(bundle.class_names[label]) for label in rows]
    axes.set_yticks([(i + 0.5) * how.size for i in range(len(rows))], labels=names, fontsize=8)
    axes.set_xticks([])
    save(figure, path, dpi=100)
