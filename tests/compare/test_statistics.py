"""Means, intervals, corrected verdicts, and how often a whole table says something false."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtr

from excite.comparison.plan import looks
from excite.comparison.results import Row, judge
from excite.comparison.statistics import (
    BETTER,
    NOISE,
    WORSE,
    Gain,
    corrected,
    holm,
    mean_std,
    p_in_words,
    paired_gain,
    visible,
)
from excite.comparison.variants import Variant

FAMILIES = 20_000


def test_interval_of_three_pairs() -> None:
    gain = paired_gain([0.91, 0.92, 0.93], [0.90, 0.90, 0.90])
    # differences 1, 2, 3 points: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert gain.mean == pytest.approx(0.02)
    assert gain.low == pytest.approx(0.02 - half, abs=1e-8)
    assert gain.high == pytest.approx(0.02 + half, abs=1e-8)
    # t = 2 sqrt(3) with two degrees of freedom: p = 1 - t / sqrt(2 + t²)
    assert gain.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert gain.verdict == NOISE


@pytest.mark.parametrize("seed", range(5))
def test_p_values_and_intervals_say_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for n in (2, 3, 5, 12):
        gain = paired_gain(list(rng.normal(0.01, 0.01, n)), [0.0] * n)
        assert gain.p is not None
        assert gain.low is not None
        assert gain.high is not None
        assert (gain.p < 0.05) == (gain.low > 0 or gain.high < 0)


def test_verdicts() -> None:
    assert paired_gain([0.95, 0.951, 0.952], [0.90, 0.90, 0.902]).verdict == BETTER
    assert paired_gain([0.90, 0.90, 0.902], [0.95, 0.951, 0.952]).verdict == WORSE


def test_pairing_removes_what_seeds_share() -> None:
    values, baseline = [0.5, 0.7, 0.9], [0.49, 0.69, 0.889]
    assert paired_gain(values, baseline).verdict == BETTER  # each seed agrees, though seeds differ by 40 points


@pytest.mark.parametrize("difference", [0.0, 0.01, -0.25])
def test_equal_differences_say_nothing(difference: float) -> None:
    baseline = [0.61, 0.72, 0.85]
    for n in (2, 3):
        gain = paired_gain([b + difference for b in baseline[:n]], baseline[:n])  # rounding leaves 1e-17 of variance
        assert (gain.low, gain.high, gain.p) == (None, None, None)
        assert gain.verdict == "equal differences: no interval"


def test_one_seed_has_no_interval() -> None:
    gain = paired_gain([0.9], [0.8])
    assert (gain.low, gain.high) == (None, None)
    assert "one seed" in gain.verdict
    assert mean_std([0.9]) == (0.9, None)
    assert mean_std([0.9, 0.8])[1] == pytest.approx(0.0707, abs=1e-4)


def test_holm() -> None:
    # An example by hand: 4 * 0.01, 3 * 0.02, then 2 * 0.02 would fall below what went before, 1 * 0.4.
    assert holm([0.4, 0.01, 0.02, 0.02]) == pytest.approx([0.4, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "<0.001"), (0.0009, "<0.001"), (0.001, "0.001"), (0.0494, "0.049"), (0.0496, "0.0496"), (0.05, "0.050"),
     (0.0504, "0.050"), (1.0, "1.000")],
)  # fmt: skip
def test_a_p_value_is_shown_on_its_side_of_the_level(p: float, text: str) -> None:
    assert p_in_words(p) == text


def row(name: str, gain: Gain | None) -> Row:
    return Row(name, Variant("eca"), "none", {}, {}, 0.9, 0.01, gain, None)


def test_a_verdict_depends_on_how_many_methods_were_tried() -> None:
    sure = paired_gain([0.95, 0.951, 0.956], [0.90, 0.90, 0.90])  # p = 0.0012
    unsure = paired_gain([0.91, 0.925, 0.92], [0.90, 0.90, 0.90])  # p = 0.054 alone
    borderline = paired_gain([0.914, 0.925, 0.92], [0.90, 0.90, 0.90])  # p = 0.026 alone
    alone = row("a", borderline)
    gains = {"none": None, "a": borderline, "b": sure, "c": unsure, "d": Gain(0.1, None, None, 1, "one seed")}
    table = [row(name, gain) for name, gain in gains.items()]
    assert judge([alone])[0].verdict == BETTER
    assert [row.verdict for row in judge(table)] == ["baseline", NOISE, BETTER, NOISE, "one seed"]
    assert judge(table)[1].gain.low > 0  # type: ignore[union-attr]  # the raw interval stays as it was


def test_a_variant_without_a_result_counts() -> None:
    """One that fails, or has not ended, does not make the others look clearer."""
    clear = paired_gain([0.51, 0.51, 0.515, 0.503], [0.5] * 4)
    assert clear.p is not None
    failed = replace(row("srm", None), mean=None)
    judged = judge([row("none", None), row("se", clear), failed, replace(failed, name="eca")])
    assert judged[1].gain is not None
    assert judged[1].gain.p_holm == pytest.approx(3 * clear.p)
    assert [r.verdict for r in judged[2:]] == ["not finished"] * 2
    assert judged[2].gain is None


def false_claims(rng: np.random.Generator, seeds: int, images: int | None, better: int) -> tuple[float, float]:
    """Return the shares of simulated tables with a false claim: with the correction, and without it.

    A table: a baseline and five methods, of which the last `better` are two points better and the others equal.
    images: accuracies are shares of so many images.
    """
    accuracy = 0.6 + rng.normal(0, 0.01, (FAMILIES, 1, seeds)) + rng.normal(0, 0.006, (FAMILIES, 6, seeds))
    accuracy[:, 6 - better :] += 0.02
    if images:
        accuracy = np.round(accuracy * images) / images
    # The p-values of `paired_gain` for all tables at once; the first tables say that they are the same.
    differences = accuracy[:, 1:] - accuracy[:, :1]
    spread, mean = differences.std(axis=2, ddof=1), differences.mean(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(np.ptp(differences, axis=2) <= 1e-6, 1.0, 2 * stdtr(seeds - 1, -abs(mean) / spread * seeds**0.5))
    for table, expected in zip(accuracy[:100].tolist(), p.tolist(), strict=False):
        gains = corrected([paired_gain(values, table[0]) for values in table[1:]])
        assert [1.0 if g.p is None else g.p for g in gains] == pytest.approx(expected)
        assert [g.verdict in (BETTER, WORSE) for g in gains] == [h < 0.05 for h in holm(expected)]
    null = 5 - better
    with_correction = np.mean([min(holm(row)[:null]) < 0.05 for row in p.tolist()])
    return float(with_correction), float((p[:, :null].min(axis=1) < 0.05).mean())


@pytest.mark.parametrize(
    ("seeds", "images", "better"), [(3, None, 0), (5, None, 0), (3, 3000, 0), (3, 360, 0), (4, None, 2)]
)
def test_a_table_claims_something_false_in_at_most_five_per_cent(seeds: int, images: int | None, better: int) -> None:
    with_correction, without = false_claims(np.random.default_rng(0), seeds, images, better)
    assert with_correction <= 0.05
    assert without > 0.08  # the simulation can see false claims


def test_whoever_stops_at_the_first_clear_verdict_is_wrong_in_at_most_five_per_cent() -> None:
    """2,000 tables of three variants that do nothing, grown from 3 to 12 seeds as --until-clear 12 does."""
    rng = np.random.default_rng(1)
    judged = looks(3, 12)
    assert judged == (3, 6, 12)
    corrected_wrong = naive_wrong = 0
    for _ in range(2000):
        accuracy = 0.7 + rng.normal(0, 0.01, (1, 12)) + rng.normal(0, 0.006, (4, 12))
        wrong = {1: False, len(judged): False}
        for seeds in judged:
            gains = [paired_gain(values[:seeds], accuracy[0, :seeds]) for values in accuracy[1:]]
            for correction in wrong:
                wrong[correction] |= any(gain.clear for gain in corrected(gains, correction))
        corrected_wrong += wrong[len(judged)]
        naive_wrong += wrong[1]
    assert corrected_wrong / 2000 <= 0.05
    assert naive_wrong / 2000 > 0.07  # without the correction the simulation sees false claims


def test_the_gain_that_is_said_to_be_visible_is_found_in_four_of_five_tables() -> None:
    rng = np.random.default_rng(2)
    deviation, seeds = 0.01, 5
    differences = [list(rng.normal(0, deviation, 2000))]
    # The deviation is known well here; the test is that of `seeds` pairs against Holm's first level of two variants.
    needed = visible([differences[0][:seeds]], 2)
    assert needed is not None
    known = needed / np.std(differences[0][:seeds], ddof=1) * deviation
    found = 0
    for _ in range(2000):
        clear = paired_gain(list(rng.normal(known, deviation, seeds)), [0.0] * seeds)
        found += corrected([clear, Gain(0.0, None, None, 1, "nothing")])[0].clear
    assert found / 2000 == pytest.approx(0.8, abs=0.03)
    assert visible([[0.1]], 1) is None
    assert visible([[0.1, 0.1, 0.1]], 1) is None
    assert visible([], 0) is None
