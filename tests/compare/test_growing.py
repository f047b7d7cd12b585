"""A comparison that goes on: more seeds, looks that have been and looks that are withdrawn."""

from dataclasses import replace
from pathlib import Path

import pytest

from excite.comparison.plan import Plan, load, looks, make_plan, save
from excite.errors import UsageError


def finish(plan: Plan, folder: Path) -> None:
    for run in plan.runs(folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "summary.json").write_text("{}")


def stand(folder: Path, *steps: tuple[int, int | None]) -> Plan:
    """Return a comparison that has come through these (seeds, until_clear), each finished."""
    for seeds, until_clear in steps:
        plan = save(make_plan("none,eca", seeds=seeds, until_clear=until_clear), folder)
        finish(plan, folder)
    return plan


def later(plan: Plan, seeds: int, folder: Path) -> Plan:
    """Return a comparison after its next look, as `run_plan` goes on."""
    plan = save(replace(plan, seeds=seeds), folder)
    finish(plan, folder)
    return plan


@pytest.mark.parametrize("seeds", [0, -1, -3])
@pytest.mark.parametrize("most", [None, 0, 5])
def test_a_comparison_has_a_seed(seeds: int, most: int | None) -> None:
    """Doubling none of them would never end."""
    with pytest.raises(UsageError, match=f"--seeds {seeds}: at least one run"):
        make_plan(seeds=seeds, until_clear=most).check()
    if most is not None:
        with pytest.raises(UsageError, match=f"--seeds {seeds}: at least one run"):
            looks(seeds, most)


# What stands there: (seeds, until_clear) of the commands before and the number of seeds that they came to; then the new
# command, and the seeds and looks that it comes to.
CASES = {
    "the same command": ([(3, 12)], 6, (3, 12), 6, (3, 6, 12)),
    "the same command after the last look": ([(3, 12)], 12, (3, 12), 12, (3, 6, 12)),
    "from where it stands": ([(3, 12)], 6, (6, 12), 6, (3, 6, 12)),
    "further than planned": ([(3, 12)], 6, (3, 24), 6, (3, 6, 12, 24)),
    "less far than planned": ([(3, 12)], 6, (3, 6), 6, (3, 6)),
    "no further": ([(3, 12)], 6, (6, None), 6, (3,)),
    "no further, before a look was had": ([(3, 12)], 3, (3, None), 3, ()),
    "to another number": ([(3, 12)], 6, (8, None), 8, (3, 6)),
    "the same command after one that was grown by hand": ([(2, None), (3, 12)], 6, (3, 12), 6, (2, 3, 6, 12)),
    "a look after a table": ([(3, None)], 3, (6, 12), 6, (3, 6, 12)),
    "looks that begin where it stands": ([(6, None)], 6, (6, 24), 6, (6, 12, 24)),
}


@pytest.mark.parametrize("case", CASES)
def test_looks_that_have_been_count_and_others_can_be_withdrawn(case: str, tmp_path: Path) -> None:
    before, stands, (seeds, until_clear), expected, counted = CASES[case]
    plan = stand(tmp_path, *before)
    for look in [look for look in plan.looks if plan.seeds < look <= stands]:
        plan = later(plan, look, tmp_path)
    assert plan.seeds == stands
    new = save(make_plan("none,eca", seeds=seeds, until_clear=until_clear), tmp_path)
    assert (new.seeds, new.looks) == (expected, counted)
    assert new.judged == len({*counted, expected})
    assert load(tmp_path) == new
    assert save(make_plan("none,eca", seeds=seeds, until_clear=until_clear), tmp_path) == new


@pytest.mark.parametrize(
    ("new", "remedy"),
    [
        ((3, None), "go on with --seeds 6, or"),
        ((3, 24), "go on with --seeds 6 --until-clear 24, or"),
        ((5, 40), "go on with --seeds 6 --until-clear 40, or"),
        ((2, 4), "go on with --seeds 6 --until-clear 6, or"),
    ],
)
def test_seeds_are_not_taken_away(new: tuple[int, int | None], remedy: str, tmp_path: Path) -> None:
    """Three of six seeds, or looks that were not had while there were three, are another comparison."""
    stand(tmp_path, (6, None))
    with pytest.raises(UsageError, match=remedy):
        save(make_plan("none,eca", seeds=new[0], until_clear=new[1]), tmp_path)
