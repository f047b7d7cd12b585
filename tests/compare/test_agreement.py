"""Runs stand in one table only where they were made alike: as the plan says, from the same photos."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from excite.cli.main import main
from excite.common.options import Option
from excite.comparison import run_plan
from excite.comparison.agreement import check_agreement, disagreements
from excite.comparison.experiment import write_report
from excite.comparison.plan import Plan, Run, make_plan, save
from excite.comparison.table import notes, verdict
from excite.engine.config import plain
from excite.errors import ExciteError, UsageError

SUMMARY = {"last_top1": 0.5, "last_top5": 0.9, "seconds": 1.0, "train_images": 64, "val_images": 20, "size": 32,
           "precision": "fp32", "split": "val"}  # fmt: skip


def finish(plan: Plan, run: Run, summary: dict[str, object] | None = None, **options: object) -> None:
    """What a run leaves that has ended, as far as tables read it; options, summary: what is otherwise in it."""
    run.folder.mkdir(parents=True)
    config = replace(plan.config(run.variant, run.seed, run.folder), **options)
    (run.folder / "config.yaml").write_text(yaml.safe_dump(plain(config.recorded())))
    (run.folder / "metrics.csv").write_text("epoch,train_loss,val_top1\n1,2.0,0.5\n")
    (run.folder / "summary.json").write_text(
        json.dumps(SUMMARY | {"last_top1": 0.5 + 0.01 * run.seed} | (summary or {}))
    )


def finished(
    folder: Path, plan: Plan, odd: int = -1, summary: dict[str, object] | None = None, **options: object
) -> Plan:
    """A comparison that has ended; the odd one of its runs was made with other options, or has another summary."""
    save(plan, folder)
    for number, run in enumerate(plan.runs(folder)):
        if number == odd:
            finish(plan, run, summary, **options)
        else:
            finish(plan, run)
    return plan


PLANS = {
    "digits": make_plan("none,eca", seeds=2),
    "options of variants": make_plan("none:stem=3,eca:kernel_size=[3,5,7],se@first,emca_eca:blocks=all", seeds=2),
    "attached": make_plan("none,eca@sites=[layer3]", "resnet20,timm/resnet10t", seeds=2),
    "a recipe, lists": make_plan("none,se", data="parquet:x", recipe="cifar10-short", train={"milestones": [3, 6]}),
}


def found(plan: Plan, folder: Path) -> list[str]:
    return disagreements(plan.runs(folder))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_runs_that_were_made_as_the_plan_says_agree(plan: Plan, tmp_path: Path) -> None:
    finished(tmp_path, plan)
    assert found(plan, tmp_path) == []
    check_agreement(plan, tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [("lr", 0.7), ("weight_decay", 0.0), ("epochs", 3), ("batch_size", 16), ("limit_train", 10), ("mixup", 0.2),
     ("augment", "none"), ("optimizer", "adamw"), ("schedule", "step"), ("label_smoothing", 0.1),
     ("data", "parquet:elsewhere"), ("ema", 0.9), ("size", 64), ("milestones", [1]), ("pretrained", True)],
)  # fmt: skip
def test_a_run_that_was_made_otherwise_than_the_others_is_named(option: str, value: object, tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"], 3, **{option: value})
    [words] = found(plan, tmp_path)
    flag = f"--{option.replace('_', '-')}"
    assert words.startswith(f"eca, seed 1 was made with {flag} {value}, and none, seed 0 with {flag} ")
    with pytest.raises(UsageError, match=r"eca, seed 1.*remove the folders"):
        check_agreement(plan, tmp_path)
    results = write_report(tmp_path)
    assert verdict(results).startswith("NOT COMPARABLE")
    assert words in notes(results)[0]
    assert [row.verdict for row in results.rows] == ["baseline", "not comparable"]
    assert results.visible is None
    assert results.to_dict()["disagreements"] == [words]
    for file in ("report.html", "results.md", "results.json"):
        assert words.partition(",")[0] in (tmp_path / file).read_text(), file


@pytest.mark.parametrize(
    ("option", "value"), [("seed", 9), ("placement", "last"), ("options", {"kernel_size": 9}), ("model", "resnet32")]
)
def test_a_run_of_another_variant_in_its_folder_is_named(option: str, value: object, tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"], 3, **{option: value})
    with pytest.raises(UsageError, match=rf"eca, seed 1 was made with --{option} .*not "):
        check_agreement(plan, tmp_path)


def test_a_run_that_is_half_done_is_checked_too(tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"], 3, epochs=3)
    (plan.runs(tmp_path)[3].folder / "summary.json").unlink()
    assert found(plan, tmp_path) == []
    with pytest.raises(UsageError, match=r"eca, seed 1 was made with --epochs 3, not 10"):
        check_agreement(plan, tmp_path)


@pytest.mark.parametrize(
    "option", [{"workers": 3}, {"precision": "bf16"}, {"device": "cpu"}, {"logger": "none"}, {"quiet": False}]
)
def test_where_and_how_a_run_is_computed_may_differ(option: dict[str, object], tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"], 3, **option)
    assert found(plan, tmp_path) == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [({"train_images": 63}, "had 63 training images, and none, seed 0 64 training images"),
     ({"val_images": 19}, "had 19 validation images, and none, seed 0 20 validation images"),
     ({"size": 64}, "had images of 64 pixels, and none, seed 0 images of 32 pixels"),
     ({"precision": "bf16"}, "had a precision of bf16, and none, seed 0 a precision of fp32")],
)  # fmt: skip
def test_photos_that_were_exchanged_show(entry: dict[str, object], words: str, tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"], 2, entry)
    assert found(plan, tmp_path) == [f"none, seed 1 {words}"]


def test_backbones_may_have_images_of_their_own_size(tmp_path: Path) -> None:
    plan = make_plan("none,eca", "resnet20,timm/resnet10t", seeds=1)
    save(plan, tmp_path)
    for run in plan.runs(tmp_path):
        finish(plan, run, {"size": 32 if run.variant.backbone == "resnet20" else 224})
    assert found(plan, tmp_path) == []


def test_a_recipe_that_was_changed_since_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, folder = tmp_path / "r.yaml", tmp_path / "c"
    recipe.write_text("lr: 0.1\nepochs: 2\n")
    finished(folder, make_plan("none,eca", recipe=str(recipe), seeds=2))
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    recipe.write_text("lr: 0.7\nepochs: 2\n")
    call = ["compare", "--methods", "none,eca,se", "--recipe", str(recipe), "--seeds", "2", "--out", str(folder)]
    assert main(call) == 2
    error = capsys.readouterr().err
    assert "none, seed 0 was made with --lr 0.1, not 0.7" in error
    assert "and 1 more" in error
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_report_needs_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows runs as they are: the recipe's file may be gone, changed, or another version's."""
    recipe, folder = tmp_path / "r.yaml", tmp_path / "c"
    recipe.write_text("lr: 0.1\nepochs: 2\n")
    finished(folder, make_plan("none,eca", recipe=str(recipe), seeds=2))
    for config in folder.rglob("config.yaml"):
        config.write_text(config.read_text() + "an_option_of_tomorrow: 3\n")
    recipe.write_text("lr: 0.7\n")
    assert main(["compare", "--report", str(folder)]) == 0
    recipe.unlink()
    assert main(["compare", "--report", str(folder)]) == 0
    assert "NOT COMPARABLE" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "- 1\n", "lr: [", "\x00"])
def test_a_config_that_cannot_be_read_says_nothing(text: str, tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"])
    (plan.runs(tmp_path)[1].folder / "config.yaml").write_text(text)
    assert found(plan, tmp_path) == []
    check_agreement(plan, tmp_path)


def test_photos_that_are_exchanged_meanwhile_end_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the runs, with the reports written; and no more seeds are trained for a verdict that there is not."""
    plan = make_plan("none,eca", seeds=2, until_clear=4, train={"epochs": 1})

    def train(plan: Plan, waiting: list[Run], *_: object) -> list[object]:
        for run in waiting:
            finish(plan, run, {"train_images": 64 - run.seed})
        return []

    monkeypatch.setattr("excite.comparison.experiment._train", train)
    with pytest.raises(ExciteError, match="none, seed 1 had 63 training images"):
        run_plan(plan, tmp_path, report=lambda line: None)
    assert "NOT COMPARABLE" in (tmp_path / "report.html").read_text()
    assert len(list(tmp_path.glob("runs/*"))) == 4


def test_another_rate_on_the_command_line_is_another_comparison(tmp_path: Path) -> None:
    """That is said, and not that runs should be removed."""
    finished(tmp_path, PLANS["digits"])
    with pytest.raises(UsageError, match="holds another comparison"):
        run_plan(make_plan("none,eca", seeds=2, train={"lr": 0.7}), tmp_path, report=lambda line: None)


def test_real_runs_agree(tmp_path: Path) -> None:
    """What a run works out for itself, such as its rate and size, is no disagreement."""
    train: dict[str, Option] = {"lr": "auto", "batch_size": 32, "epochs": 1, "limit_train": 64, "limit_val": 20}
    plan = make_plan("none,eca", seeds=1, train=train)
    run_plan(plan, tmp_path, report=lambda line: None)
    assert found(plan, tmp_path) == []
    assert run_plan(plan, tmp_path, report=lambda line: None).disagreements == ()


def test_runs_of_which_nothing_is_known_are_taken(tmp_path: Path) -> None:
    plan = finished(tmp_path, PLANS["digits"])
    for file in tmp_path.rglob("config.yaml"):
        file.unlink()
    assert found(plan, tmp_path) == []
