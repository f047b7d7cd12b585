"""A comparison that goes on: more seeds, variants, backbones; every run that has finished is found again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from excite.comparison.plan import Plan, load, looks, make_plan, save
from excite.comparison.standing import joined
from excite.comparison.variants import Variant
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


def earlier(plan: Plan, folder: Path) -> Plan:
    """Write a plan as earlier versions did: their plan.json says nothing of names."""
    values = plan.to_dict()
    for name in ("asked", "named_by_backbone"):
        del values[name]
    folder.mkdir()
    for variant in values["variants"]:
        del variant["file"]
    (folder / "plan.json").write_text(json.dumps(values))
    return load(folder)


def finished(plan: Plan, folder: Path) -> set[str]:
    return {run.label.partition(" on ")[0] + f" {run.variant.backbone}" for run in plan.runs(folder) if run.finished}


TWO = ["none resnet20", "eca:kernel_size=5 resnet20"]


@pytest.mark.parametrize("version", ["today", "earlier"])
@pytest.mark.parametrize("backbones", ["resnet20,resnet32", "resnet32,resnet20", "resnet32,resnet20,resnet56"])
def test_a_backbone_is_added(version: str, backbones: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    one = make_plan("none,eca:kernel_size=5", "resnet20", seeds=2)
    one = save(one, folder) if version == "today" else earlier(one, folder)
    assert {run.folder.name for run in one.runs(folder)} == {
        f"{name}-seed{seed}" for name in ("none", "eca-kernel_size=5-de2533") for seed in range(2)
    }
    finish(one, folder)
    more = save(make_plan("none,eca:kernel_size=5", backbones, seeds=2), folder)
    assert finished(more, folder) == set(TWO)
    assert len({run.folder for run in more.runs(folder)}) == 4 * len(backbones.split(","))
    assert load(folder) == more
    finish(more, folder)
    most = save(make_plan("none,se,eca:kernel_size=5", f"{backbones},mobilenet_v2_cifar", seeds=3), folder)
    assert {run.folder for run in more.runs(folder)} == {run.folder for run in most.runs(folder) if run.finished}


def test_runs_of_several_backbones_of_an_earlier_version(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    plan = earlier(make_plan("none,eca", "resnet20,resnet32", seeds=1), folder)
    names = [run.folder.name for run in plan.runs(folder)]
    assert names[0] == "none-on-resnet20-17edb2-seed0"
    assert all("-on-resnet" in name for name in names)
    finish(plan, folder)
    more = save(make_plan("none,eca,se", "resnet20,resnet32,resnet56", seeds=1), folder)
    assert finished(more, folder) == {f"{m} {b}" for m in ("none", "eca") for b in ("resnet20", "resnet32")}
    assert [run.folder.name for run in load(folder).runs(folder) if run.finished] == names


SPELLINGS = {
    "order": ("emca_eca:stages=1;blocks=2", "emca_eca:blocks=2;stages=1"),
    "numbers": ("eca:gamma=2", "eca:gamma=2.0"),
    "dashes": ("eca:kernel_size=3", "eca:kernel-size=3"),
    "place first": ("se:reduction=8@last", "se@last:reduction=8"),
    "white space": ("eca:kernel_size=3;gamma=4", " eca : gamma=4 ; kernel_size=3 "),
    "brackets": ("eca:kernel_size=[3,5,7]", "eca:kernel_size=[3, 5, 7]"),
}


@pytest.mark.parametrize("case", SPELLINGS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("more", ["", ",resnet32"])
def test_a_variant_written_otherwise_is_the_same(case: str, turned: bool, more: str, tmp_path: Path) -> None:
    first, second = SPELLINGS[case][:: -1 if turned else 1]
    stands = save(make_plan(f"none,{first}", seeds=1), tmp_path)
    finish(stands, tmp_path)
    new = save(make_plan(f"none,{second},srm", f"resnet20{more}", seeds=1), tmp_path)
    assert finished(new, tmp_path) == {f"{name} resnet20" for name in stands.names}
    assert [v.written for v in new.variants][:2] == [v.written for v in stands.variants]
    with pytest.raises(UsageError, match=r"are the same network|is named twice"):
        make_plan(f"none,{first},{second}").check()


@pytest.mark.parametrize("case", SPELLINGS)
def test_what_grew_elsewhere_is_found_by_another_spelling(case: str, tmp_path: Path) -> None:
    """Of a store that another machine wrote to; a file of one's own may lie elsewhere there."""
    first, second = SPELLINGS[case]
    there = save(make_plan(f"none,{first},srm", seeds=2), tmp_path)
    lines: list[str] = []
    grown = joined(make_plan(f"none,{second}", seeds=1), tmp_path, lines.append)
    assert grown == there
    assert lines == ["the store has grown: going on with 3 variants and 2 seeds"]
    moved = [replace(v, file="elsewhere/mine.py:MyGate") for v in there.variants]
    assert joined(make_plan(moved[:2], seeds=2), tmp_path, lines.append) == there


def test_labels_and_order_stay(tmp_path: Path) -> None:
    """Given or not, for the backbones that are added too; another label is another comparison."""
    labelled = [Variant("none"), Variant("eca", label="narrow"), Variant("se", label="wide")]
    stands = save(make_plan(labelled, seeds=1), tmp_path)
    finish(stands, tmp_path)
    new = save(make_plan("none,srm,se,eca", "resnet32,resnet20", seeds=1), tmp_path)
    assert new.names == [f"{m} on {b}" for b in ("resnet20", "resnet32") for m in ("none", "narrow", "wide", "srm")]
    assert finished(new, tmp_path) == {"none resnet20", "narrow resnet20", "wide resnet20"}
    with pytest.raises(UsageError, match=r"another comparison \(narrow on resnet20"):
        save(make_plan(["none", Variant("eca", label="other"), "se", "srm"], "resnet20,resnet32", seeds=1), tmp_path)


@pytest.mark.parametrize("methods", ["eca,none", "se,none,eca", "eca,none,se"])
@pytest.mark.parametrize("backbones", ["resnet20", "resnet32,resnet20"])
def test_another_baseline_is_another_comparison(methods: str, backbones: str, tmp_path: Path) -> None:
    save(make_plan("none,eca"), tmp_path)
    with pytest.raises(UsageError, match="another baseline"):
        save(make_plan(methods, backbones), tmp_path)


def test_two_variants_do_not_share_a_folder() -> None:
    """A label may be what another one's runs are called."""
    plan = make_plan(["none", "eca", Variant("se", label="eca on resnet32")], "resnet20,resnet32")
    with pytest.raises(UsageError, match="give one of them a label of its own"):
        plan.check()


def test_what_differs_is_named(tmp_path: Path) -> None:
    save(make_plan(train={"lr": 0.1, "flip": True}), tmp_path)
    with pytest.raises(UsageError) as error:
        save(make_plan(train={"lr": 0.5, "milestones": [3]}), tmp_path)
    for part in ("--train.lr 0.1 there, 0.5 here", "--train.flip True there, as in the recipe here", "[3] here"):
        assert part in str(error.value)
