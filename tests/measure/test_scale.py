"""The calculator for many GPUs, and the speed of an input pipeline."""

import json
import math
from dataclasses import replace

import pytest

from excite.cli.main import main
from excite.measure.scale import Cluster, Work, predict, rate, volume

WORK = Work(macs=4.1e9, weights=102_000_000, state=307_000_000, images=1_280_000, per_gpu=32)
CLUSTER = Cluster(step=2500, decode=300)


def test_a_ring_sends_twice_all_but_its_own_share() -> None:
    assert volume(1, 100) == 0
    assert volume(2, 100) == 100
    assert volume(64, 100) == pytest.approx(2 * 63 / 64 * 100)


def test_one_gpu_exchanges_nothing() -> None:
    alone = predict(WORK, CLUSTER, 1)
    assert (alone.exchange, alone.exposed, alone.volume) == (0, 0, 0)
    assert alone.step == max(32 / 2500, 32 / 2400)
    assert alone.epoch == pytest.approx(40_000 * alone.step)


@pytest.mark.parametrize("gpus", [1, 7, 8, 9, 64, 512])
def test_a_step_lasts_as_long_as_its_slowest_part(gpus: int) -> None:
    row = predict(WORK, CLUSTER, gpus)
    assert row.step == max(row.compute + row.exposed, row.decode, row.read)
    assert row.epoch == pytest.approx(row.step * (WORK.images // (gpus * WORK.per_gpu)))
    assert 0 < row.efficiency <= 1


def test_more_gpus_exchange_more_and_never_need_longer() -> None:
    rows = [predict(WORK, CLUSTER, gpus) for gpus in (8, 64, 512)]
    assert [r.exchange for r in rows] == sorted(r.exchange for r in rows)
    assert [r.epoch for r in rows] == sorted((r.epoch for r in rows), reverse=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cores": 2}, "decoding"),
        ({"decode": 1e9, "storage": 1e7}, "reading"),
        ({"decode": 1e9, "storage": 1e12}, "arithmetic"),
        ({"decode": 1e9, "storage": 1e12, "between": 1e9}, "exchange"),
    ],
)
def test_the_bottleneck_is_named(changes: dict[str, float], expected: str) -> None:
    assert predict(WORK, replace(CLUSTER, **changes), 64).bottleneck == expected


def test_a_rate_follows_from_peak_and_arithmetic() -> None:
    assert rate(4.1e9, 312e12, 0.2) == pytest.approx(312e12 * 0.2 / (6 * 4.1e9))


def test_the_command_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", "resnet18", "--gpus", "8", "64", "--images", "1.28e6", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [row["gpus"] for row in values["predictions"]] == [8, 64]
    assert values["gradient_bytes"] == 4 * 11_689_512
    assert values["checkpoint_bytes"] > 2 * values["gradient_bytes"]
    assert values["assumed"] == ["20 % of the a100's peak"]
    assert all(math.isfinite(row["epoch"]) and row["epoch"] > 0 for row in values["predictions"])
    assert main(["plan", "--model", "resnet18", "--step-rate", "1000"]) == 0
    out = capsys.readouterr().out
    assert "one GPU trains 1,000 images/s (as given)" in out
    assert main(["plan", "--gpus", "0"]) == 2
    assert main(["plan", "--cores", "0"]) == 2


def test_an_input_pipeline_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--data", "digits", "--rounds", "3", "--min-time", "0.01"]
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["cached"] is True
    assert len(values["samples"]) == 3
    assert values["interval"][0] <= values["images_per_s"] <= values["interval"][1]
    assert values["per_core"] == values["images_per_s"]
    assert main(words) == 0
    assert "images/s [" in capsys.readouterr().out
    assert main(["bench"]) == 2
    assert "--data SPEC" in capsys.readouterr().err
    assert main(["bench", "resnet18", "--data", "digits"]) == 2
