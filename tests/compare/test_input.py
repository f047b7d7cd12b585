"""Whatever is typed counts: it overrides what a file says, or is refused by name."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import excite.cli.compare as cli
from excite.cli.main import main
from excite.comparison import Plan, Variant, budget, experiment, run_plan
from excite.comparison.budget import Pace
from excite.comparison.execute import execute
from excite.comparison.plan import load, make_plan, save
from excite.comparison.variants import parse
from excite.errors import UsageError


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """Return what types a command line and returns its plan, which is not trained."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Plan:
        plans: list[Plan] = []
        monkeypatch.setattr(experiment, "run_plan", lambda plan, folder, **rest: plans.append(plan))
        monkeypatch.setattr(cli, "_show", lambda *arguments: None)
        assert main(["compare", *words]) == 0
        return plans[0]

    return run


UNUSED = [
    ["ablation-kernel"], ["--methods", "none,eca"], ["--backbone", "resnet32"], ["--data", "cifar10"],
    ["--recipe", "modern"], ["--seeds", "3"], ["--epochs", "3"], ["--until-clear", "6"], ["--budget", "3"],
    ["--train.lr", "0.1"], ["--options.se.reduction", "8"], ["--out", "c"], ["--jobs", "2"], ["--ray", "auto"],
    ["--store", "file:///tmp/x"],
]  # fmt: skip


@pytest.mark.parametrize("words", UNUSED)
def test_a_report_refuses_what_it_cannot_use(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(make_plan("none,eca"), tmp_path / "c")
    assert main(["compare", "--report", str(tmp_path / "c"), *words]) == 2
    name = "PLAN" if not words[0].startswith("-") else words[0].partition(".")[0]
    assert f"trains nothing, so it has no use for {name}; leave it out" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["plan.json"]


def test_every_option_of_a_report_is_decided_on() -> None:
    from inspect import signature

    tried = {words[0].lstrip("-").partition(".")[0].replace("-", "_") for words in UNUSED} - {"ablation_kernel"}
    assert tried | {"plan", "report", "json"} == set(signature(cli.compare).parameters)


EPOCHS = {
    "file": ("epochs: 20", [], 20),
    "file, under train": ("train: {epochs: 20}", [], 20),
    "typed over file": ("epochs: 20", ["--epochs", "3"], 3),
    "typed under train over file": ("epochs: 20", ["--train.epochs", "3"], 3),
    "typed over train of file": ("train: {epochs: 20}", ["--epochs", "3"], 3),
    "typed under train over train": ("train: {epochs: 20}", ["--train.epochs", "3"], 3),
    "twice the same": ("epochs: 20", ["--epochs", "3", "--train.epochs", "3"], 3),
    "none": ("seeds: 2", [], 10),
}


@pytest.mark.parametrize("case", EPOCHS)
def test_epochs_that_are_typed_override_those_of_a_file(case: str, planned: Callable[..., Plan]) -> None:
    text, words, expected = EPOCHS[case]
    Path("grid.yaml").write_text(text)
    assert planned("grid.yaml", *words).changes == {"epochs": expected}


@pytest.mark.parametrize(
    ("before", "words", "epochs"),
    [
        ([], ["--data", "cifar10"], None),
        ([], ["--recipe", "modern"], None),
        ([], ["--data", "cifar10", "--epochs", "10"], 10),
        ([], ["--data", "cifar10", "--train.epochs", "4"], 4),
        ([], ["--seeds", "5"], 10),
        ([], ["--data", "digits"], 10),
        (["--epochs", "7"], ["--data", "cifar10"], 7),
        (["--data", "cifar10", "--epochs", "10"], ["--seeds", "5"], 10),
        (["--data", "cifar10", "--epochs", "10"], ["--data", "digits"], 10),
        (["--data", "cifar10"], ["--data", "digits"], 10),
        (["--recipe", "digits", "--epochs", "10"], ["--data", "cifar10"], 10),
    ],
)
def test_epochs_that_only_the_digits_take_stay_with_them(
    before: list[str], words: list[str], epochs: int | None, planned: Callable[..., Plan]
) -> None:
    stands = save(planned("--methods", "none,se", *before, "--train.lr", "0.5"), Path("plan"))
    assert planned("plan/plan.json") == stands
    assert planned("plan/plan.json", *words).changes == {"lr": 0.5} | ({"epochs": epochs} if epochs else {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: 2", ["--epochs", "9", "--train.epochs", "3"]),
        ("epochs: 9", ["--epochs", "9", "--train.epochs", "3"]),
        ("epochs: 9\ntrain: {epochs: 3}", []),
    ],
)
def test_epochs_that_contradict_each_other(
    text: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(text)
    assert main(["compare", "grid.yaml", *words]) == 2
    assert "--epochs 9 and --train.epochs 3 are the same option; leave one out" in capsys.readouterr().err


PLANS = {
    "json": [],
    "text": ["methods: 'none,se:reduction=4'"],
    "entries": ["methods: [none, 'se:reduction=4']", "methods: [none, {se: {reduction: 4}}]"],
    "a label": ["methods: [none, {method: se, options: {reduction: 4}, label: narrow}]"],
    "of all": ["methods: none,se\noptions: {se: {reduction: 4}}"],
}


@pytest.mark.parametrize("case", PLANS)
def test_options_of_a_method_that_are_typed_override_those_of_a_file(
    case: str, planned: Callable[..., Plan], capsys: pytest.CaptureFixture
) -> None:
    save(planned("--methods", "none,se", "--options.se.reduction", "4"), Path("plan"))
    for number, text in enumerate(PLANS[case]):
        Path(f"{number}.yaml").write_text(text)
    for name in [f"{number}.yaml" for number in range(len(PLANS[case]))] or ["plan/plan.json"]:

        def options(*words: str, name: str = name) -> list[object]:
            return [variant.options for variant in planned(name, *words).variants]

        assert options() == [{}, {"reduction": 4}]
        assert options("--options.se.reduction", "8") == [{}, {"reduction": 8}]
        assert options("--options.se.bias", "true") == [{}, {"reduction": 4, "bias": True}], "all else stays"
        assert planned(name, "--options.se.reduction", "8").names == planned(name).names[:1] + [
            "narrow" if "label" in case else "se:reduction=8"
        ]
        typed = options("--methods", "none,se,se:reduction=2", "--options.se.reduction", "8")
        assert typed == [{}, {"reduction": 8}, {"reduction": 2}], "what is typed of one variant is more exact"
        assert main(["compare", name, "--options.eca.gamma", "2"]) == 2
        assert "--options.eca: eca is not compared here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "se@first@last",
        "se@last@last",
        "eca@sites=layer1@sites=layer2",
        "eca:kernel_size=3;kernel_size=5",
        "eca:kernel_size=3;kernel-size=3",
        "eca:kernel_size=3:kernel_size=5",
        "se:reduction=8@last:reduction=4",
        "eca:gamma=2;kernel_size=[3,5];gamma=3@first",
    ],
)
def test_what_is_said_twice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"variant '.*': (placement|sites|kernel_size|reduction|gamma) is said twice"):
        parse(text, "resnet20")
    with pytest.raises(UsageError, match="said twice"):
        make_plan(f"none,{text}")


@pytest.mark.parametrize("backbone", ["resnet56", "resnet20", "timm/resnet18"])
def test_a_variant_on_a_backbone_of_its_own(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It has no baseline there, and was trained on the others' backbone."""
    file = tmp_path / "grid.yaml"
    file.write_text(f"methods: [none, {{method: eca, backbone: {backbone}}}]\nbackbone: resnet32")
    assert main(["compare", str(file), "--out", str(tmp_path / "c")]) == 2
    assert "variant 'eca' has a backbone of its own; all variants are trained on each" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    if backbone != "resnet20":  # that of a Variant that says nothing
        with pytest.raises(
            UsageError, match=f"eca is a variant on {backbone}, and the backbone is resnet32, resnet110"
        ):
            make_plan(["none", Variant("eca", backbone)], "resnet32,resnet110")
    assert make_plan(["none", Variant("eca", "resnet32")], "resnet32").backbones == ["resnet32"]


PACES = [Pace(0.0, 0.0, 10.0, 0.0)] * 2
SMALL = {"limit_train": 96, "limit_val": 20, "epochs": 3, "batch_size": 16}


@pytest.fixture
def within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """Return what gives a comparison with a budget again, with other options; nothing is trained."""

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "_paces", lambda *arguments: (PACES, 1))
    monkeypatch.setattr(experiment, "_run_seeds", stop)

    def run(**train: Any) -> Plan:
        with pytest.raises(KeyboardInterrupt):
            run_plan(make_plan("none,eca", seeds=1, train={**SMALL, **train}), tmp_path, budget=100.0, report=len)
        return load(tmp_path)

    return run


def test_a_budget_goes_on_with_what_it_planned(within: Callable[..., Plan], tmp_path: Path) -> None:
    first = within()
    assert first.asked == SMALL
    assert first.changes == {**SMALL, "limit_train": 80}
    assert within() == first
    assert within(limit_train=80) == first, "what was planned may be said, too"
    for other in ({"lr": 0.5}, {"epochs": 9}, {"limit_train": 32}, {"limit_val": 10}, {"warmup_epochs": 2.0}):
        name, value = next(iter(other.items()))
        with pytest.raises(UsageError, match=rf"another comparison \(--train\.{name} .* there, {value} here\)"):
            within(**other)
    assert load(tmp_path) == first


def test_a_budget_of_an_earlier_version(within: Callable[..., Plan], tmp_path: Path) -> None:
    """What was asked for is not known there: what a budget may have planned is taken over, all else must agree."""
    save(replace(make_plan("none,eca", seeds=1, train={**SMALL, "limit_train": 80}), budget=100.0), tmp_path)
    assert within().changes == {**SMALL, "limit_train": 80}
    for other in ({"lr": 0.5}, {"limit_val": 10}, {"batch_size": 8}):
        with pytest.raises(UsageError, match=rf"\(--train\.{next(iter(other))} [^,]* there, [^,]* here\)"):
            within(**other)


def test_what_a_budget_may_plan_is_listed() -> None:
    shrinking = [{"schedule": "cosine"}, {"schedule": "step", "milestones": [9]}, {"schedule": "exponential"}]
    for train in shrinking:
        plan = make_plan("none,eca", train={"epochs": 10, "warmup_epochs": 2.0, **train})
        fits = budget.planned(plan, 2000.0, 1000, 100, PACES, 1, len)
        new = {name for name, value in fits.changes.items() if plan.changes.get(name) != value}
        assert {"epochs", "warmup_epochs", "limit_train"} <= new <= {*budget.PLANNED}


def test_files_that_were_written_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without costs there is no picture of them, without a pair none of gains."""
    plan = save(make_plan("none,eca", seeds=1, train={**SMALL, "epochs": 1, "limit_train": 32}), tmp_path)
    for runs, drawn in ((0, []), (1, ["curves.png"]), (2, ["gains.png", "curves.png"])):
        if runs:
            execute(plan, plan.runs(tmp_path)[runs - 1])
        assert main(["compare", "--report", str(tmp_path)]) == 0
        named = capsys.readouterr().out.rpartition("files: ")[2].split()
        names = [name.rstrip(",").rpartition("/")[2] for name in named]
        assert names == ["report.html", "results.csv", "results.json", "results.md", *drawn]
        assert all((tmp_path / name).is_file() for name in names)
    shutil.rmtree(tmp_path / "runs")


@pytest.mark.parametrize("option", ["--comparisons", "--results"])
@pytest.mark.parametrize("name", ["ablations", "emca"])
def test_a_folder_that_was_named_must_be_there(
    option: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["tables", name, option, str(tmp_path / "nope")]) == 2
    assert f"{option} {tmp_path}/nope is not there" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["tables", name, option, str(tmp_path / "file")]) == 2
    assert "is a file; give the name of a folder" in capsys.readouterr().err


def test_the_usual_folders_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tables", "ablations"]) == 0
    assert "No run of ours" in capsys.readouterr().out
    assert main(["tables", "ablations", "--comparisons", str(tmp_path)]) == 0
