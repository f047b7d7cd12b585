"""Means, intervals and verdicts."""

import math

import pytest

from excite.comparison.statistics import BETTER, NOISE, WORSE, mean_std, paired_gain


def test_interval_of_three_pairs() -> None:
    gain = paired_gain([0.91, 0.92, 0.93], [0.90, 0.90, 0.90])
    # differences 1, 2, 3 points: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert gain.mean == pytest.approx(0.02)
    assert gain.low == pytest.approx(0.02 - half, abs=1e-8)
    assert gain.high == pytest.approx(0.02 + half, abs=1e-8)
    assert gain.verdict == NOISE


def test_verdicts() -> None:
    assert paired_gain([0.95, 0.951, 0.952], [0.90, 0.90, 0.902]).verdict == BETTER
    assert paired_gain([0.90, 0.90, 0.902], [0.95, 0.951, 0.952]).verdict == WORSE


def test_pairing_removes_what_seeds_share() -> None:
    values, baseline = [0.5, 0.7, 0.9], [0.49, 0.69, 0.889]
    assert paired_gain(values, baseline).verdict == BETTER  # each seed agrees, though seeds differ by 40 points


def test_one_seed_has_no_interval() -> None:
    gain = paired_gain([0.9], [0.8])
    assert (gain.low, gain.high) == (None, None)
    assert "one seed" in gain.verdict
    assert mean_std([0.9]) == (0.9, None)
    assert mean_std([0.9, 0.8])[1] == pytest.approx(0.0707, abs=1e-4)
