"""What a comparison compares: one start, data and seed for all methods, the last epoch, seeds paired with seeds."""

import json
from pathlib import Path

import pytest
import torch

from excite.comparison import Plan, collect, cost
from excite.comparison.execute import execute
from excite.comparison.plan import make_plan, save
from excite.measure.bench import Timing


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """Runs that learn nothing: their last weights are their first."""
    folder = tmp_path_factory.mktemp("untrained") / "c"
    changes = {"epochs": 1, "limit_train": 16, "limit_val": 10, "batch_size": 16, "lr": 0.0}
    plan = make_plan("none,se", seeds=2, train=changes)
    save(plan, folder)
    for run in plan.runs(folder):
        execute(plan, run)
    return plan, folder


def test_runs_of_a_seed_start_from_the_same_weights(untrained: tuple[Plan, Path]) -> None:
    plan, folder = untrained
    weights, seeds = {}, {}
    for run in plan.runs(folder):
        content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
        weights[run.label, run.seed] = content["state_dict"]
        summary = json.loads((run.folder / "summary.json").read_text())
        seeds[run.label, run.seed] = (summary["seed"], content["excite_config"]["seed"])
    assert seeds == {(method, seed): (seed, seed) for method in ("none", "se") for seed in (0, 1)}
    learned = [k for k in weights["none", 0] if k.endswith(("conv1.weight", "conv2.weight", "fc.weight", "fc.bias"))]
    assert len(learned) == 21
    for seed in (0, 1):
        for key in learned:
            assert torch.equal(weights["none", seed][key], weights["se", seed][key]), key
    gates = "model.layer1.0.attention.gate.reduce.weight"
    assert not torch.equal(weights["se", 0][gates], weights["se", 1][gates])
    assert not torch.equal(weights["none", 0]["model.conv1.weight"], weights["none", 1]["model.conv1.weight"])


def test_an_unfinished_comparison_is_balanced() -> None:
    plan = make_plan("none,se,eca", seeds=2)
    order = [(run.label, run.seed) for run in plan.runs(Path("c"))]
    assert order == [("none", 0), ("se", 0), ("eca", 0), ("none", 1), ("se", 1), ("eca", 1)]


LAST = {
    "none": {0: 0.50, 1: 0.80, 2: 0.61, 3: 0.92},
    "se": {1: 0.83, 2: 0.62, 3: 0.94},  # seed 0 is not finished
    "eca": {0: 0.55, 1: 0.90},
}


def written(folder: Path) -> None:
    """Write the runs of a comparison: in each the best epoch is better than the last, by another amount."""
    save(make_plan(tuple(LAST), seeds=4), folder)
    for begun in ("se-seed0", "eca-seed3"):
        (folder / "runs" / begun).mkdir(parents=True)
    for method, scores in LAST.items():
        for seed, top1 in scores.items():
            run = folder / "runs" / f"{method}-seed{seed}"
            run.mkdir(parents=True)
            best = top1 + 0.01 * (1 + seed) * len(method)
            summary = {"top1": best, "top5": 1.0, "last_top1": top1, "last_top5": top1 / 2 + 0.5, "seconds": 1.0 + seed}
            (run / "summary.json").write_text(json.dumps(summary))
            (run / "metrics.csv").write_text(f"epoch,train_loss,val_top1\n1,2.0,{best}\n2,1.0,{top1}\n")


def test_gains_are_of_the_last_epoch_and_the_same_seed(tmp_path: Path) -> None:
    written(tmp_path)
    results = collect(tmp_path)
    assert (results.finished, results.total, results.complete) == (9, 12, False)
    none, se, eca = results.rows
    assert [row.top1 for row in (none, se, eca)] == list(LAST.values())
    assert (none.mean, se.mean, eca.mean) == pytest.approx((0.7075, 0.7966667, 0.725))
    assert none.gain is None
    assert (se.gain.pairs, eca.gain.pairs) == (3, 2)
    assert se.gain.mean == pytest.approx((0.03 + 0.01 + 0.02) / 3)
    assert eca.gain.mean == pytest.approx((0.05 + 0.10) / 2)
    half = 4.302653 * 0.01 / 3**0.5
    assert (se.gain.low, se.gain.high) == pytest.approx((0.02 - half, 0.02 + half))
    assert se.top5 == {1: 0.915, 2: 0.81, 3: 0.97}
    assert (se.seconds, none.seconds) == (9.0, 10.0)


def test_costs_are_ratios_to_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """se takes 3/2 of the baseline's time for one image, and of the rounds for a batch from 1.6 to 2.4 of it."""
    rounds = [1.0, 2.0, 4.0, 2.0, 1.0]
    ratios = [1.6, 2.4, 2.0, 2.0, 2.0]
    one = {"none": rounds, "se": [1.5 * r for r in rounds]}
    many = {"none": [10 * r for r in rounds], "se": [10 * r * q for r, q in zip(rounds, ratios, strict=True)]}
    steps = {"none": rounds, "se": [1.25 * r for r in rounds]}
    answers = iter([steps, one, many])

    def interleave(calls: dict, *args: object, **kwargs: object) -> dict[str, Timing]:
        return {name: Timing(name, 1, samples) for name, samples in next(answers).items() if name in calls}

    monkeypatch.setattr(cost, "interleave", interleave)
    plan = make_plan("none,se", seeds=1)
    costs = cost.measure(plan, 10, 16, batch=8)["costs"]
    none, se = costs["none"], costs["se"]
    assert (none["latency_ratio"], none["throughput_ratio"]) == (1, 1)
    assert (none["latency_ms"], none["throughput"]) == (2000, 8 / 20)
    assert (se["latency_ratio"], se["throughput_ratio"], se["step_ratio"]) == pytest.approx((1.5, 0.5, 1.25))
    assert se["step_ms"] == pytest.approx(2500)
    assert se["throughput"] == pytest.approx(8 / 40)
    assert se["throughput_spread"] == pytest.approx((1 / 2.32, 1 / 1.68))
    assert (se["size"], se["batch"]) == (16, 8)
    assert se["parameters"] - none["parameters"] == se["attention_parameters"] > 0
