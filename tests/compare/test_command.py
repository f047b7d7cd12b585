"""The command in the report: typed into a shell it makes the same plan, and goes on in its folder."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import excite.cli.compare as cli
from excite.cli.main import main
from excite.comparison import Plan, Variant, experiment
from excite.comparison.command import command
from excite.comparison.plan import load, looks, make_plan, plan_values, save
from excite.comparison.variants import is_built_in
from excite.registry import METHODS, VARIABLE

GATE = """
import torch
from torch import nn

class MyGate(nn.Module):
    '''A gate of my own.'''
    def __init__(self, channels, start=0.0, sizes=(3, 5)):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), float(start)))

    def forward(self, x):
        return x * torch.sigmoid(self.scale)[:, None, None]
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a method of one's own, which is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "")  # and not without it: what is listed in a test goes with it
    Path("mine.py").write_text(GATE)
    before = dict(METHODS)
    yield
    for name in METHODS.keys() - before.keys():
        del METHODS[name]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what types a command line: the plan that it comes to, and the folder that it writes to."""

    def run(line: str) -> tuple[Plan, Path]:
        words = shlex.split(line)
        if words[0].startswith(f"{VARIABLE}="):
            from excite.registry import resolve_method

            for name in words.pop(0).partition("=")[2].split(","):
                resolve_method(name)
        assert words.pop(0) == "excite"
        found: list[tuple[Plan, Path]] = []
        monkeypatch.setattr(experiment, "run_plan", lambda plan, folder, **rest: found.append((plan, folder)))
        monkeypatch.setattr(cli, "_show", lambda *arguments: None)
        assert main(words) == 0
        return found[0]

    return run


# Plans as commands make them.
MADE: dict[str, dict[str, Any]] = {
    "the default": {},
    "options": {"methods": "none,eca:kernel_size=3,emca_eca:stages=1;blocks=all,se:reduction=4;bias=true"},
    "a list": {"methods": "none,eca:kernel_size=[3,5,7],psa:kernels=[3/5/7/9]"},
    "a Python list of one": {"methods": ["none", Variant("eca", options={"kernel_size": [3]})]},
    "a list of one": {"methods": "none,eca:kernel_size=[3]"},
    "a Python list": {"methods": ["none", Variant("eca", options={"kernel_size": [3, 5, 7]})]},
    "text like a number": {"methods": ["none", Variant("eca", options={"kernel_size": "3"})]},
    "text like a word": {"methods": ["none", Variant("eca", options={"kernel_size": "none"})]},
    "numbers": {"methods": "none,eca:gamma=2.0;b=1,srm"},
    "places": {"methods": "none,se@first,se:reduction=8@last,eca@sites=[layer1,layer2.0],eca@sites=stage-ends"},
    "backbones": {"methods": "none,eca,se@last", "backbone": "resnet20,mobilenet_v2_cifar,resnet56"},
    "another library": {"methods": "none,eca", "backbone": "timm/resnet18", "data": "imagefolder:a b/c"},
    "data and recipe": {"data": "parquet:data/it's here@val=0.2", "recipe": "cifar10-short", "seeds": 7},
    "looks": {"seeds": 3, "until_clear": 20},
    "one look": {"seeds": 3, "until_clear": 3},
    "epochs": {"epochs": 4},
    "milestones": {"train": {"milestones": [3, 6], "schedule": "step"}},
    "one milestone": {"train": {"milestones": [3], "schedule": "step"}},
    "no list": {"train": {"milestones": [], "no_decay": []}},
    "texts in a list": {"train": {"no_decay": ["norm", "bias"]}},
    "switches": {"train": {"nesterov": False, "flip": True, "limit_train": None, "lr": 1e-5, "precision": "bf16"}},
    "what begins with a dash": {"train": {"checkpoint_every": "-x"}},
    "own methods": {"methods": "none,mine.py:MyGate,mine.py:MyGate:start=0.5@last"},
    "an own backbone": {"methods": "none,eca", "backbone": "net.py:make", "data": "mine.py:data"},
    "lists of own methods": {"methods": "none,mine.py:MyGate:sizes=[3,5,7],mine.py:MyGate:sizes=[3]"},
    "text in brackets of own methods": {"methods": "none,mine.py:MyGate:sizes=[3/5,a]"},
    "options of a method": {"methods": "none,se,se:reduction=4", "options": {"se": {"bias": True}}},
}
# Plans that no line of options can say.
BY_FILE: dict[str, dict[str, Any]] = {
    "labels": {"methods": ["none", Variant("eca", label="wide and late"), Variant("se", label="x")]},
    "labels on backbones": {"methods": ["none", Variant("eca", label="a")], "backbone": "resnet20,resnet32"},
    "labels and looks": {"methods": ["none", Variant("eca", label="a")], "seeds": 2, "until_clear": 9},
    "nested": {"methods": ["none", Variant("eca", options={"kernel_size": {"a": [1, 2]}})]},
    "a text that is another word": {"methods": ["none", Variant("eca", options={"kernel_size": "null"})]},
    "a number as text": {"train": {"checkpoint_every": "30"}},
    "control characters": {"data": "imagefolder:a\x1b[0m"},
    "text of own methods like a list": {"methods": ["none", Variant("my_gate", options={"sizes": "3,5"})]},
    "code beside labels": {
        "methods": ["none", "mine.py:MyGate", Variant("eca", label="a")], "backbone": "net.py:make",
        "data": "mine.py:data",
    },
}  # fmt: skip
ALL = MADE | BY_FILE


def alike(one: Plan, other: Plan) -> bool:
    """Whether two plans are the same, files of methods included; a method of ours takes lists as text, too."""
    pairs = list(zip(one.variants, other.variants, strict=True))
    same = all(a == b or (a.same(b) and a.name == b.name and is_built_in(a.method)) for a, b in pairs)
    return same and replace(one, variants=other.variants) == other and all(a.file == b.file for a, b in pairs)


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("there", ["there", "a folder/of mine", "the usual"])
def test_the_command_makes_the_plan_and_goes_on_with_it(case: str, there: str, typed: Any) -> None:
    made = make_plan(**ALL[case])
    folder = made.folder if there == "the usual" else Path(there)
    save(made, folder)
    again, out = typed(command(made, folder))
    assert alike(again, made)
    assert out == folder
    assert alike(save(again, out), made)
    assert ("plan.json" in command(made)) == (case in BY_FILE)
    if case in MADE:  # elsewhere, without what is there
        assert alike(typed(command(made))[0], made)


# A comparison that has grown: its plan, and seeds and looks as commands had them.
@pytest.mark.parametrize(
    ("seeds", "had", "expected"),
    [
        (5, (3,), "--seeds 5"),
        (12, (3, 6, 12), "--seeds 3 --until-clear 12"),
        (6, (3, 6, 12), "--seeds 3 --until-clear 12"),
        (3, (3, 6, 12), "--seeds 3 --until-clear 12"),
        (6, (2, 3, 6, 12), "--seeds 3 --until-clear 12"),
        (6, (3, 6, 12, 24), "--seeds 3 --until-clear 24"),
        (6, (3,), "--seeds 6"),
        (8, (3, 6), "--seeds 8"),
        (10, (3, 6, 10), "--seeds 3 --until-clear 10"),
        (7, (5, 7, 13), "--seeds 7 --until-clear 13"),
        (3, (3,), "--seeds 3 --until-clear 3"),
        (5, (2, 4, 5, 8), "--seeds 5 --until-clear 8"),
    ],
)
def test_seeds_and_looks(seeds: int, had: tuple[int, ...], expected: str, typed: Any) -> None:
    stands = replace(make_plan("none,eca"), seeds=seeds, looks=had)
    save(stands, Path("there"))
    assert command(stands).partition(" --seeds")[0] + f" {expected} --train.epochs 10" == command(stands)
    new, _ = typed(command(stands))
    assert set(new.looks) <= set(had)
    assert save(new, Path("there")) == stands


@pytest.mark.parametrize("case", ["options", "labels", "looks"])
def test_a_budget_is_kept(case: str, typed: Any) -> None:
    """What was planned stands in the command; the minutes stay those of the folder."""
    planned = replace(make_plan(**ALL[case]), budget=12.0, asked={"epochs": 10})
    planned = save(replace(planned, changes={"epochs": 5, "limit_train": 96}), Path("there"))
    assert "--budget" not in command(planned)
    new, _ = typed(command(planned, Path("there")))
    assert new.changes == planned.changes
    assert save(new, Path("there")) == planned


def test_options_over_a_plan_file(typed: Any) -> None:
    made = save(make_plan(["none", Variant("eca", label="a")], seeds=2, until_clear=9, epochs=3), Path("there"))
    new, folder = typed("excite compare there/plan.json --seeds 4 --train.lr 0.5 --out o --epochs 7")
    assert (new.seeds, new.looks, new.changes) == (4, (), {"epochs": 7, "lr": 0.5})
    assert new.variants == made.variants
    assert folder == Path("o")
    new, _ = typed("excite compare there/plan.json --until-clear 4 --methods none,se --backbone resnet56")
    assert (new.seeds, new.looks, new.names) == (2, (2, 4), ["none", "se"])
    assert new.backbones == ["resnet56"]


def test_a_list_of_an_earlier_version_is_gone_on_with(typed: Any) -> None:
    """A list in a plan.json is not rewritten: the runs that are there were configured with it."""
    made = save(make_plan("none,eca:kernel_size=[3,5,7]"), Path("there"))
    values = json.loads(Path("there/plan.json").read_text())
    values["variants"][1]["options"] = {"kernel_size": [3, 5, 7]}
    Path("there/plan.json").write_text(json.dumps(values))
    listed = load(Path("there"))
    assert command(listed) == command(made)
    assert save(typed(command(listed))[0], Path("there")) == listed
    assert [run.folder for run in listed.runs(Path())] == [run.folder for run in made.runs(Path())]


@pytest.mark.parametrize("name", ["results.json", "there/other.json", "there/plan.json"])
def test_what_is_no_plan_file(name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", name]) == 2
    assert "plan.json" in capsys.readouterr().err


def test_variants_on_one_backbone_alone_are_no_matter_of_a_command(capsys: pytest.CaptureFixture) -> None:
    """Python can make such a plan, by `run_plan`; a command would add what is missing."""
    save(Plan((Variant("none"), Variant("eca"), Variant("none", "resnet32")), "digits"), Path("there"))
    assert main(["compare", "there/plan.json"]) == 2
    assert "has other variants on each backbone" in capsys.readouterr().err


def test_cases_are_those_that_they_say(typed: Any) -> None:
    assert looks(3, 20) == make_plan(**MADE["looks"]).looks
    assert plan_values(None) == {}
