"""What a run computes, against the same computed by hand: steps, mixed images, scores, the best epoch."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from excite.data.arrays import ArrayImages
from excite.data.bundle import DataBundle
from excite.data.preprocess import Preprocess
from excite.models import NetworkSpec
from excite.train import FitResult, TrainConfig, fit
from excite.train.evaluate import evaluate
from excite.train.module import Classifier
from excite.train.predictor import NetworkPredictor
from excite.train.summary import summarise

CLASSES = 10
HALF = Preprocess(5, 5, (0.5,) * 3, (0.25,) * 3)


class Watched(nn.Module):
    """Keeps the images that it is trained on, and what it gives for them."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.layers(x)
        if self.training and x.device.type == "cpu":
            self.seen.append((x.detach().clone(), logits.detach().clone()))
        return logits


def network(outputs: int = CLASSES, seed: int = 0) -> Watched:
    torch.manual_seed(seed)
    return Watched(nn.Sequential(nn.Flatten(), nn.Linear(75, 6), nn.ReLU(), nn.Linear(6, outputs)))


def bundle(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], classes: int = CLASSES) -> DataBundle:
    names = [f"class {i}" for i in range(classes)]
    return DataBundle("made", ArrayImages(*train), ArrayImages(*val), names, HALF.to_dict())


def noise(n: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 5, 5), generator=draw, dtype=torch.uint8)
    return images, torch.randint(0, CLASSES, (n,), generator=draw)


def normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - 0.5) / 0.25


def run(out: Path, model: nn.Module, data: DataBundle, **options: object) -> FitResult:
    plain = {
        "batch_size": 4,
        "augment": "none",
        "schedule": "constant",
        "epochs": 2,
        "quiet": True,
        "weight_decay": 0.0,
    }
    return fit(TrainConfig(out=str(out), **{**plain, **options}), network=model, bundle=data)


# Steps of the optimizer.

OPTIONS = {
    "plain": {},
    "momentum": {"momentum": 0.5, "weight_decay": 0.3},
    "label_smoothing": {"label_smoothing": 0.3},
    "accumulate": {"accumulate": 2},
    "clip": {"clip": 0.02},
    "nesterov": {"nesterov": True},
    "ema": {"ema": 0.15},
    "all": {
        "label_smoothing": 0.2, "accumulate": 3, "clip": 0.1, "nesterov": True, "momentum": 0.7, "weight_decay": 0.05,
        "ema": 0.9,
    },
    "adam": {"optimizer": "adam", "momentum": 0.6, "weight_decay": 0.5, "lr": 0.01},
    "adamw": {"optimizer": "adamw", "momentum": 0.6, "weight_decay": 0.5, "lr": 0.01},
}  # fmt: skip


class ByHand:
    """SGD, Adam and AdamW, accumulation, clipping and averaging in their equations."""

    def __init__(self, model: nn.Module, options: dict) -> None:
        usual = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False, "clip": 0.0}
        self.o = {**usual, "ema": 0.0, "accumulate": 1, "label_smoothing": 0.0, **options}
        self.model, self.weights = model, [p.detach().clone() for p in model.parameters()]
        self.first, self.second = ([torch.zeros_like(w) for w in self.weights] for _ in range(2))
        self.average = self.weights
        self.steps = 0

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        share = self.o["label_smoothing"]
        logs = self.model(x).log_softmax(1)
        return -((1 - share) * logs[range(len(y)), y] + share * logs.mean(1)).mean()

    def epoch(self, batches: list[tuple[Tensor, Tensor]]) -> float:
        """Take the steps of an epoch; return its mean loss over the images."""
        sums, total = [torch.zeros_like(w) for w in self.weights], 0.0
        for number, (x, y) in enumerate(batches, 1):
            for parameter, weight in zip(self.model.parameters(), self.weights, strict=True):
                parameter.data = weight
            loss = self.loss(x, y)
            total += loss.item() * len(y)
            gradients = torch.autograd.grad(loss, list(self.model.parameters()))
            sums = [s + g / self.o["accumulate"] for s, g in zip(sums, gradients, strict=True)]
            if number % self.o["accumulate"] == 0 or number == len(batches):
                self.step(sums)
                sums = [torch.zeros_like(w) for w in self.weights]
        return total / sum(len(y) for _, y in batches)

    def step(self, gradients: list[Tensor]) -> None:
        o = self.o
        length = torch.cat([g.flatten() for g in gradients]).norm()
        if o["clip"] and length > o["clip"]:
            gradients = [g * o["clip"] / length for g in gradients]
        if o["optimizer"] == "adamw":
            self.weights = [w * (1 - o["lr"] * o["weight_decay"]) for w in self.weights]
        else:
            gradients = [g + o["weight_decay"] * w for g, w in zip(gradients, self.weights, strict=True)]
        self.weights = [w - o["lr"] * d for w, d in zip(self.weights, self.directions(gradients), strict=True)]
        decay = min(o["ema"], (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        pairs = zip(self.average, self.weights, strict=True)
        self.average = [decay * a + (1 - decay) * w for a, w in pairs]
        self.steps += 1

    def directions(self, gradients: list[Tensor]) -> list[Tensor]:
        beta = self.o["momentum"]
        if self.o["optimizer"] == "sgd":
            self.first = [beta * m + g for m, g in zip(self.first, gradients, strict=True)]
            return [g + beta * m if self.o["nesterov"] else m for m, g in zip(self.first, gradients, strict=True)]
        t = self.steps + 1
        self.first = [beta * m + (1 - beta) * g for m, g in zip(self.first, gradients, strict=True)]
        self.second = [0.999 * v + 0.001 * g * g for v, g in zip(self.second, gradients, strict=True)]
        return [
            (m / (1 - beta**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            for m, v in zip(self.first, self.second, strict=True)
        ]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_takes_the_steps_of_the_equations(tmp_path: Path, name: str) -> None:
    (images, labels), val = noise(20, 1), noise(130, 2)  # more than one batch of validation
    model = network()
    before = deepcopy(model.layers)
    result = run(tmp_path / "run", model, bundle((images, labels), val), **OPTIONS[name])
    numbered = normalised(images).flatten(1)
    batches = []
    for x, _ in model.seen:
        rows = torch.cdist(x.flatten(1), numbered).argmin(1)
        assert torch.allclose(numbered[rows], x.flatten(1), atol=1e-5)
        batches.append((x, labels[rows]))
    assert len(batches) == 10  # two epochs of five
    hand = ByHand(before, OPTIONS[name])
    for row, epoch in zip(result.rows, (batches[:5], batches[5:]), strict=True):
        assert row["train_loss"] == pytest.approx(hand.epoch(epoch), rel=1e-4)
        assert row["images_per_s"] > 0.99 * 20 / row["seconds"]
    final = hand.average if hand.o["ema"] else hand.weights
    for ours, theirs in zip(model.layers.parameters(), final, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    for parameter, weight in zip(before.parameters(), final, strict=True):
        parameter.data = weight
    logits = before(normalised(val[0]))
    assert result.rows[-1]["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, val[1]).item(), rel=1e-4)
    assert result.rows[-1]["val_top1"] == pytest.approx(float((logits.argmax(1) == val[1]).float().mean()))


# Mixed images.


def colours(n: int) -> tuple[Tensor, Tensor]:
    """Red, green and blue images: the mean of a mixed one says what it was mixed of."""
    labels = torch.arange(n) % 3
    return (255 * torch.eye(3, dtype=torch.uint8)[labels])[:, :, None, None].expand(-1, -1, 5, 5).contiguous(), labels


def mixed(out: Path, **options: object) -> tuple[FitResult, list[Tensor], list[Tensor]]:
    """Run without learning; return what came out, the images in [0, 1] of every batch, and the logits."""
    model = network(3)
    result = run(out, model, bundle(colours(48), colours(6), 3), lr=0.0, batch_size=6, epochs=1, **options)
    return result, [x * 0.25 + 0.5 for x, _ in model.seen], [logits for _, logits in model.seen]


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_images_and_labels_are_mixed_alike(tmp_path: Path, options: dict[str, float]) -> None:
    result, batches, logits = mixed(tmp_path / "run", label_smoothing=0.1, **options)
    soft = torch.cat([x.mean((2, 3)) for x in batches])
    assert ((soft > 0.01) & (soft < 0.99)).any(1).float().mean() > 0.2
    targets = 0.9 * soft + 0.1 / 3
    loss = -(targets * torch.cat(logits).log_softmax(1)).sum(1).mean()
    assert result.rows[0]["train_loss"] == pytest.approx(float(loss), rel=1e-4)
    # Mixed by mixup an image is of one colour still, by cutmix every pixel is red, green or blue.
    blended = [bool(((x > 0.01) & (x < 0.99)).any()) for x in batches]
    assert set(blended) == {"mixup" in options, "cutmix" not in options}


def test_how_much_is_mixed_depends_on_seed_and_batch(tmp_path: Path) -> None:
    shares = []
    for seed in (0, 1, 1):
        _, batches, _ = mixed(tmp_path / f"run{len(shares)}", mixup=0.8, seed=seed)
        shares.append([round(float(x.mean((2, 3)).sub(0.5).abs().sub(0.49).clamp(max=0).min()), 4) for x in batches])
    assert shares[1] == shares[2]
    assert len(set(shares[0])) == len(shares[0])
    assert not set(shares[0]) & set(shares[1])


# Scores.


class Ranked(nn.Module):
    """Gives the first ten numbers of an image as its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.flatten(1)[:, :CLASSES]


RANKS = [1, 1, 1, 2, 3, 4, 4, 4, 5, 5, 6, 10]


def ranked() -> tuple[Tensor, Tensor]:
    """Images for `Ranked`: the right class has the given rank among the logits."""
    labels = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    images = torch.zeros(len(RANKS), 75, dtype=torch.uint8)
    for image, label, rank in zip(images, labels.tolist(), RANKS, strict=True):
        others = [c for c in range(CLASSES) if c != label]
        for place, c in enumerate([*others[: rank - 1], label, *others[rank - 1 :]]):
            image[c] = 240 - 20 * place
    return images.view(-1, 3, 5, 5), labels


def test_scores_are_those_of_the_ranks(tmp_path: Path) -> None:
    """In training and in a test: shares of images whose class is first, or among the first five."""
    images, labels = ranked()
    model = Ranked()
    result = run(tmp_path / "run", model, bundle(noise(8, 3), (images, labels)), lr=0.0, epochs=1)
    card = NetworkSpec("ranked", CLASSES, preprocess=HALF.to_dict())
    tested = evaluate(NetworkPredictor(model, card), ArrayImages(images, labels), batch_size=5)
    loss = nn.functional.cross_entropy(model(normalised(images)), labels).item()
    row = result.rows[0]
    for scores in ((row["val_top1"], row["val_top5"], row["val_loss"]), (tested.top1, tested.top5, tested.loss)):
        assert scores == pytest.approx((3 / 12, 10 / 12, loss), rel=1e-5)
    assert (result.top1, result.top5) == pytest.approx((3 / 12, 10 / 12))


def test_scores_of_a_class() -> None:
    """Both images of class 0 are right, and nine others are taken for it: its precision is two of eleven."""
    images, labels = ranked()
    card = NetworkSpec("ranked", CLASSES, preprocess=HALF.to_dict())
    tested = evaluate(NetworkPredictor(Ranked(), card), ArrayImages(images, labels))
    assert tested.confusion.sum(1).tolist() == torch.bincount(labels).tolist()
    first, second, third = tested.per_class([f"c{i}" for i in range(CLASSES)])[:3]
    assert first == {"class": "c0", "images": 2, "accuracy": 1.0, "precision": 2 / 11, "taken_for": None}
    assert second == {"class": "c1", "images": 1, "accuracy": 1.0, "precision": 1.0, "taken_for": None}
    assert third == {"class": "c2", "images": 1, "accuracy": 0.0, "precision": None, "taken_for": "c0"}


# The best epoch and the last.

SCORES = [0.2, 0.5, 0.3, 0.5]


def test_best_checkpoint_is_that_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Classifier, "score", lambda self, row: SCORES[int(row.get("epoch", self.current_epoch + 1)) - 1]
    )
    result = run(tmp_path / "run", network(), bundle(noise(8, 1), noise(4, 2)), epochs=4)
    best, last = (torch.load(file, weights_only=True) for file in (result.best, result.last))
    assert (best["epoch"], last["epoch"]) == (1, 3)
    assert not torch.equal(best["state_dict"]["model.layers.1.weight"], last["state_dict"]["model.layers.1.weight"])


def test_a_summary_names_the_best_and_the_last_epoch() -> None:
    rows = [
        {"epoch": i, "val_top1": s, "val_top5": s + 0.1, "seconds": 2.0, "images_per_s": 10.0 * i, "waiting": 0.1}
        for i, s in enumerate(SCORES, 1)
    ]
    for selects, result in ((True, (0.5, 0.6)), (False, (0.3, 0.4))):  # chosen on the test split it is the last one's
        summary = summarise(rows[:3], lambda row: row["val_top1"], split="val", selects=selects)
        assert (summary["top1"], summary["top5"]) == result
        assert (summary["best_top1"], summary["best_top5"], summary["best_epoch"]) == (0.5, 0.6, 2)
        assert (summary["last_top1"], summary["last_top5"]) == (0.3, 0.4)
        assert (summary["images_per_s"], summary["seconds"]) == (20.0, 6.0)
