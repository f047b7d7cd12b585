"""Accuracy of a predictor on a split: top-1, top-5, per class, and who is taken for whom."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from excite.common.plotting import figure_text, save
from excite.data.bundle import Images
from excite.data.preprocess import Preprocess, UnreadableImageError
from excite.errors import ExciteError
from excite.train.predictor import Predictor, check_logits
from excite.train.scores import balanced_accuracy, macro_f1, most_confused

ClassRow = TypedDict(
    "ClassRow",
    {"class": str, "images": int, "accuracy": float | None, "precision": float | None, "taken_for": str | None},
)
"""The scores of one class; accuracy: right among its images; taken_for: the class it is most often confused with."""


class Prediction(NamedTuple):
    """One image: where it comes from, its class, the most probable one, and that one's probability."""

    image: str
    true: int
    predicted: int
    probability: float


@dataclass
class Evaluation:
    """confusion: [classes classes], rows are the true classes; skipped: names of images that could not be read.

    predictions: a row per image.
    """

    images: int
    top1: float
    top5: float
    loss: float
    confusion: Tensor
    skipped: list[str]
    predictions: list[Prediction] = field(default_factory=list)

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' accuracies."""
        return balanced_accuracy(self.confusion)

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1."""
        return macro_f1(self.confusion)

    def table(self, names: Sequence[str]) -> list[dict[str, object]]:
        """Return a row per image, with the classes by name."""
        return [
            {
                "image": p.image,
                "class": names[p.true],
                "predicted": names[p.predicted],
                "probability": round(p.probability, 6),
                "correct": int(p.true == p.predicted),
            }
            for p in self.predictions
        ]

    def confusions(self, names: Sequence[str], most: int = 5) -> list[dict[str, object]]:
        """Return the pairs of classes that were confused most often."""
        pairs = most_confused(self.confusion, most)
        return [
            {"class": names[p.true], "taken_for": names[p.predicted], "count": p.times, "images": p.images}
            for p in pairs
        ]

    def per_class(self, names: Sequence[str]) -> list[ClassRow]:
        """Return recall (accuracy within the class), precision and the most frequent confusion of each class."""
        table: list[ClassRow] = []
        for index, name in enumerate(names):
            row, column = self.confusion[index], self.confusion[:, index]
            right, images, taken = int(row[index]), int(row.sum()), int(column.sum())
            others = row.clone()
            others[index] = 0
            worst = int(others.argmax()) if int(others.sum()) else None
            table.append(
                {
                    "class": name,
                    "images": images,
                    "accuracy": right / images if images else None,
                    "precision": right / taken if taken else None,
                    "taken_for": names[worst] if worst is not None else None,
                }
            )
        return table


def evaluate(predictor: Predictor, images: Images, *, batch_size: int = 100, skip: bool = False) -> Evaluation:
    """Run a predictor over labelled images. Raises UnreadableImageError unless `skip`."""
    card = predictor.card
    preprocess = Preprocess.of(card)
    images = preprocess.read(images)
    classes = card.num_classes
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    top5 = loss = 0.0
    skipped: list[str] = []
    predictions: list[Prediction] = []
    for start in range(0, len(images), batch_size):
        batch, labels, where = [], [], []
        for index in range(start, min(start + batch_size, len(images))):
            try:
                image, label = images[index]
                batch.append(preprocess.image(image, images.name(index)))
            except UnreadableImageError as error:
                if not skip:
                    raise
                skipped.append(error.name)
                continue
            labels.append(label)
            where.append(images.name(index))
        if not batch:
            continue
        target = torch.tensor(labels)
        logits = predictor(preprocess.normalise(torch.stack(batch))).cpu()
        check_logits(logits, card.name)
        best = logits.softmax(1).max(1)
        rows = zip(where, labels, best.indices.tolist(), best.values.tolist(), strict=True)
        predictions += [Prediction(*row) for row in rows]
        confusion += torch.bincount(target * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
        top5 += float((logits.topk(min(5, classes)).indices == target[:, None]).any(1).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
    seen = int(confusion.sum())
    if not seen:
        raise ExciteError("no image could be read")
    return Evaluation(seen, int(confusion.trace()) / seen, top5 / seen, loss / seen, confusion, skipped, predictions)


def draw_confusion(evaluation: Evaluation, names: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix, each row as shares of its class; numbers are written for up to 20 classes."""
    from matplotlib.figure import Figure

    n = len(names)
    counts = evaluation.confusion
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = min(3.0 + 0.42 * n, 14.0) if n <= 20 else 11.0
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    size = 9 if n <= 20 else 9 * 30 / max(n, 30)
    axes.set_xticks(range(n), labels=[figure_text(name) for name in names], rotation=90, fontsize=size)
    axes.set_yticks(range(n), labels=[figure_text(name) for name in names], fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"top-1 {100 * evaluation.top1:.2f} % of {evaluation.images} images")
    if n <= 20:
        for row, column in counts.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=8)
    save(figure, path, dpi=100)
