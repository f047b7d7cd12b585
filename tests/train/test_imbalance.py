"""Few images of some classes: losses, samplers, scores, and what is written of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

from excite.cli.main import main
from excite.common.tables import csv_text
from excite.data.splits import labels_of
from excite.engine.sampling import EpochSampler
from excite.engine.seeds import balanced_order
from excite.errors import UsageError
from excite.train import TrainConfig, fit
from excite.train.losses import ClassificationLoss, class_weights
from excite.train.scores import balanced_accuracy, macro_f1, most_confused

LOGITS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 0, 1, 2, 0])


def loss(**options: object) -> ClassificationLoss:
    weight = options.pop("weight", None)
    return ClassificationLoss(TrainConfig(**options), weight)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 3.0])], ids=["plain", "weighted"])
@pytest.mark.parametrize("shares", [False, True])
def test_focal_loss_without_gamma_is_cross_entropy(smoothing: float, weight, shares: bool) -> None:
    targets = F.one_hot(LABELS, 4).float() * 0.7 + 0.075 if shares else LABELS
    focal = loss(loss="focal", label_smoothing=smoothing, weight=weight)
    focal.gamma = 1e-9  # not the shortcut of 0
    torch.testing.assert_close(
        focal(LOGITS, targets), F.cross_entropy(LOGITS, targets, weight=weight, label_smoothing=smoothing)
    )


def test_focal_loss_by_hand() -> None:
    p = LOGITS.softmax(1)[torch.arange(9), LABELS]
    torch.testing.assert_close(loss(loss="focal")(LOGITS, LABELS), (-((1 - p) ** 2) * p.log()).mean())
    sure = torch.tensor([[100.0, 0, 0, 0]], requires_grad=True)
    loss(loss="focal", focal_gamma=0.5)(sure, torch.tensor([0])).backward()
    assert torch.isfinite(sure.grad).all()


def test_class_weights() -> None:
    weights = class_weights(torch.tensor([0, 0, 0, 1, -1]), 3)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0, 0.0]))


def test_balanced_order_draws_classes_alike_and_each_process_its_part() -> None:
    labels = torch.tensor([0] * 900 + [2] * 90 + [-1] * 10)
    order = balanced_order(labels, seed=0, epoch=1)
    drawn = torch.bincount(labels[order] + 1, minlength=4)
    assert drawn[0] == drawn[2] == 0
    assert abs(int(drawn[1]) - 500) < 60
    assert torch.equal(order, balanced_order(labels, seed=0, epoch=1))
    assert not torch.equal(order, balanced_order(labels, seed=0, epoch=2))
    halves = [balanced_order(labels, 0, 1, rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(), order)
    sampler = EpochSampler(1000, 0, labels=labels)
    sampler.set_epoch(1)
    assert [index for _, index in sampler] == order.tolist()


@pytest.mark.parametrize("case", ["usual", "a class never seen", "a class never predicted", "all wrong", "one class"])
def test_scores_are_those_of_scikit_learn(case: str) -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    if case == "a class never seen":
        true[true == 3] = 1
    elif case == "a class never predicted":
        predicted[predicted == 3] = 1
    elif case == "all wrong":
        predicted = (true + 1) % 5
    elif case == "one class":
        true[:] = predicted[:] = 2
    confusion = torch.from_numpy(metrics.confusion_matrix(true, predicted, labels=range(5)))
    assert macro_f1(confusion) == pytest.approx(metrics.f1_score(true, predicted, average="macro"), abs=1e-6)
    recalls = [(predicted[true == c] == c).mean() for c in set(true)]
    assert balanced_accuracy(confusion) == pytest.approx(np.mean(recalls), abs=1e-6)


def test_the_most_confused() -> None:
    confusion = torch.tensor([[5, 2, 0], [7, 1, 0], [0, 2, 0]])
    assert [tuple(p) for p in most_confused(confusion, 2)] == [(1, 0, 7, 8), (0, 1, 2, 7)]
    assert most_confused(torch.eye(3).long()) == []


def test_labels_are_known_without_decoding_where_they_can_be() -> None:
    class Listed(list):
        labels = (2, 1)

    assert labels_of(Listed()) == [2, 1]
    assert labels_of([("a", 3), ("b", 0)]) == [3, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal_gamma": 3.0}, "--focal-gamma 3.0 is for --loss focal"),
        ({"loss": "focl"}, "did you mean 'focal'"),
        ({"balance": "samplr"}, "did you mean 'sampler'"),
        ({"best": "f1"}, "--best f1: expected one of 'top1', 'macro_f1'"),
        ({"loss": "own"}, "a loss of its own"),
        ({"loss": "own", "balance": "loss"}, "--balance loss is for the losses that are built in"),
    ],
)
def test_what_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(TrainConfig(**changes))


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("cat", "cat"),
        ("=1+1", "'=1+1"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\t=1", "\\t=1"),
        ("a\nb", "a\\nb"),
        ('say "x", y', 'say "x", y'),
        (-0.5, "-0.5"),
    ],
)
def test_no_cell_is_a_formula(cell: object, written: str) -> None:
    rows = list(csv.DictReader(csv_text([{"name": cell}]).splitlines()))
    assert rows == [{"name": written}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"epochs": 2, "batch_size": 16, "limit_train": 64, "limit_val": 40, "workers": 0, "quiet": True}
    out = tmp_path_factory.mktemp("runs") / "a run"
    config = TrainConfig("resnet20", options={"width": 4}, best="macro_f1", balance="loss", out=str(out), **options)
    return fit(config).run


def test_the_run_has_the_scores(run: Path) -> None:
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    scores = [float(row["val_macro_f1"]) for row in rows]
    summary = json.loads((run / "summary.json").read_text())
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert best["epoch"] == scores.index(max(scores))
    assert 0 <= summary["balanced_accuracy"] <= 1
    assert {"macro_f1", "balanced_accuracy"} <= set(summary)


def test_test_and_predict_write_a_row_per_image(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert main(["test", str(run), "--limit", "30", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert len(rows) == report["images"] == 30
    assert sum(row["correct"] == "1" for row in rows) == round(report["top1"] * 30)
    assert all((row["class"] == row["predicted"]) == (row["correct"] == "1") for row in rows)
    assert report["confused"][0]["count"] >= report["confused"][-1]["count"]
    assert set(report["files"]) == {str(out / "confusion.png"), str(out / "predictions.csv")}

    formula = tmp_path / "=cmd.png"
    formula.write_bytes(next((run / "samples").glob("*.png")).read_bytes())
    table = tmp_path / "p.csv"
    assert main(["predict", str(run), str(formula), "--top", "3", "--out", str(table)]) == 0
    rows = list(csv.DictReader(table.open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["predict", str(run), "=cmd.png", "--out", str(table)]) == 0
    assert next(csv.DictReader(table.open()))["image"] == "'=cmd.png"
    assert main(["predict", str(run), str(formula), "--out", str(tmp_path)]) == 2


def test_next_commands_can_be_pasted(run: Path) -> None:
    from excite.train.summary import show

    text = show({**json.loads((run / "summary.json").read_text())})
    assert f"excite test '{run}'" in text
