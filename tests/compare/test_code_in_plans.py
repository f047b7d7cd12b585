"""Methods, networks and data of one's own: a plan keeps their names, and what a plan names is never run."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import excite.cli.compare as cli
from excite.cli.main import main
from excite.comparison import Plan, experiment
from excite.comparison.command import command
from excite.comparison.plan import load, make_plan, plan_values, save
from excite.comparison.results import collect
from excite.comparison.variants import Variant
from excite.errors import ExciteError
from excite.registry import METHODS, VARIABLE, resolve_method
from excite.train.network import spec_from

CODE = """
from pathlib import Path
Path(__file__).with_name('ran').touch()
from torch import nn

class MyGate(nn.Module):
    '''A gate of my own.'''
    def __init__(self, channels, start=0.0, sizes=(3, 5)):
        super().__init__()
        self.sizes = [size + 1 for size in sizes]

    def forward(self, x):
        return x

def make(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "")  # and not without it: what is listed in a test goes with it
    Path("mine.py").write_text(CODE)
    before = METHODS.keys() - {"my_gate"}
    yield
    forget(before)


def forget(before: set[str]) -> None:
    """Be another process, in which nobody has named the method."""
    for name in METHODS.keys() - before:
        del METHODS[name]
    Path("ran").unlink(missing_ok=True)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that commands come to, which are not trained."""
    plans: list[Plan] = []
    monkeypatch.setattr(experiment, "run_plan", lambda plan, folder, **rest: plans.append(plan))
    monkeypatch.setattr(cli, "_show", lambda *arguments: None)
    return plans


def own(**values: object) -> Plan:
    before = {*METHODS}
    plan = save(make_plan("none,mine.py:MyGate:start=0.5", seeds=1, **values), Path("own"))
    plan.check()
    forget(before)
    return plan


def test_the_code_of_a_test_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later commands of the same process would run it again, wherever they are."""
    resolve_method("mine.py:MyGate")
    assert "mine.py" in os.environ[VARIABLE]
    monkeypatch.undo()
    assert "mine.py" not in os.environ.get(VARIABLE, "")


def test_a_report_needs_no_method_of_ones_own(capsys: pytest.CaptureFixture) -> None:
    plan = own()
    assert json.loads(Path("own/plan.json").read_text())["variants"][1]["file"] == "mine.py:MyGate"
    assert load(Path("own")) == plan
    assert collect(Path("own")).plan.names == ["none", "my_gate:start=0.5"]
    assert main(["compare", "--report", "own"]) == 0
    assert "my_gate:start=0.5" in capsys.readouterr().out
    assert "--methods none,mine.py:MyGate:start=0.5" in Path("own/report.html").read_text()
    assert not Path("ran").exists()


def test_the_comparison_goes_on_where_the_file_has_moved() -> None:
    plan = own()
    Path("other").mkdir()
    Path("mine.py").rename("other/mine.py")
    again = save(make_plan("none,other/mine.py:MyGate:start=0.5", seeds=1), Path("own"))
    assert again == plan
    assert load(Path("own")).variants[1].file == "other/mine.py:MyGate"


def test_a_plan_of_an_earlier_version_learns_the_file() -> None:
    own()
    values = json.loads(Path("own/plan.json").read_text())
    del values["variants"][1]["file"]
    Path("own/plan.json").write_text(json.dumps(values))
    assert load(Path("own")).variants[1].file == ""
    save(make_plan("none,mine.py:MyGate:start=0.5", seeds=1), Path("own"))
    assert load(Path("own")).variants[1].file == "mine.py:MyGate"


def test_a_plan_file_with_a_method_of_ones_own(planned: list[Plan], capsys: pytest.CaptureFixture) -> None:
    plan = own()
    assert main(["compare", "own/plan.json"]) == 1
    assert "names the Python file 'mine.py:MyGate' as its method, and code" in capsys.readouterr().err
    assert not Path("ran").exists()
    resolve_method("mine.py:MyGate")  # as EXCITE_METHODS does
    assert main(["compare", "own/plan.json"]) == 0
    assert planned == [plan]


YAML = {
    "a mapping": "methods: [none, {method: my_gate, options: {sizes: [3, 5, 7]}}]",
    "a short mapping": "methods: [none, {my_gate: {sizes: [3, 5, 7]}}]",
    "of all": "{methods: [none, my_gate], options: {my_gate: {sizes: [3, 5, 7]}}}",
    "text": "methods: 'none,my_gate:sizes=[3,5,7]'",
}


@pytest.mark.parametrize("how", ["variant", "options", "tuple", "typed", *YAML])
def test_a_list_reaches_a_method_of_ones_own_as_a_list(how: str) -> None:
    """Those that come with excite read its text, too; nobody else need."""
    resolve_method("mine.py:MyGate")
    if how in YAML:
        Path("grid.yaml").write_text(YAML[how])
    plan = {
        "variant": lambda: make_plan(["none", Variant("my_gate", options={"sizes": [3, 5, 7]})]),
        "options": lambda: make_plan("none,my_gate", options={"my_gate": {"sizes": [3, 5, 7]}}),
        "tuple": lambda: make_plan("none,my_gate", options={"my_gate": {"sizes": (3, 5, 7)}}),
        "typed": lambda: make_plan("none,mine.py:MyGate:sizes=[3,5,7]"),
    }.get(how, lambda: make_plan(**plan_values("grid.yaml")))()
    plan.check()
    assert plan.variants[1].options == {"sizes": [3, 5, 7]}
    assert plan.names == ["none", "my_gate:sizes=[3,5,7]"]
    network = spec_from(plan.config(plan.variants[1], 0, Path("unused")), 10).build()
    assert [m.sizes for m in network.modules() if hasattr(m, "sizes")] == [[4, 6, 8]] * 9
    assert save(plan, Path("own")) == load(Path("own")) == plan


REFUSED = {
    "methods: 'none,mine.py:MyGate'": ("methods", "method"),
    "methods: [none, 'mine.py:MyGate:start=0.5@last']": ("methods", "method"),
    "methods: [none, {method: 'mine.py:MyGate'}]": ("methods", "method"),
    "methods: [none, {'mine.py:MyGate': {start: 0.5}}]": ("methods", "method"),
    "methods: [none, {method: my_gate, file: 'mine.py:MyGate'}]": ("methods", "method"),
    "methods: [none, {method: eca, file: 'mine.py:MyGate'}]": ("methods", "method"),
    "methods: [{method: none, file: 'mine.py:MyGate'}, eca]": ("methods", "method"),
    "backbone: 'mine.py:make'": ("backbone", "network"),
    "backbone: [resnet20, 'mine.py:make']": ("backbone", "network"),
    "backbone: 'resnet20,mine.py:make'": ("backbone", "network"),
    "data: 'mine.py:make'": ("data", "data"),
    "data: 'mine.py:make@val=0.2'": ("data", "data"),
    "data: 'wds:pipe:touch ran'": ("data", "data"),
}
TYPED = {"methods": "none,eca", "backbone": "resnet32", "data": "cifar10"}


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_plan_names_is_not_run(text: str, planned: list[Plan], capsys: pytest.CaptureFixture) -> None:
    """Whoever trusts it names it; what somebody names instead, the file need not."""
    option, what = REFUSED[text]
    Path("grid.yaml").write_text(text)
    assert main(["compare", "grid.yaml"]) == 1
    error = capsys.readouterr().err
    assert "plan grid.yaml names the" in error
    assert f"as its {what}, and" in error
    assert f"name it yourself: --{option}" in error
    assert main(["compare", "grid.yaml", f"--{option}", TYPED[option]]) == 0
    assert len(planned) == 1
    with pytest.raises(ExciteError, match="is not run"):
        plan_values("grid.yaml")
    assert not Path("ran").exists()


def test_a_plan_names_no_file_of_a_method_that_comes_with_excite(planned: list[Plan]) -> None:
    """The command in the report would run it."""
    values = save(make_plan("none,eca,se", seeds=1), Path("c")).to_dict()
    for entry in values["variants"][:2]:
        entry["file"] = "mine.py:MyGate"
    Path("c/plan.json").write_text(json.dumps(values))
    assert main(["compare", "c/plan.json"]) == 0
    for plan in (load(Path("c")), planned[0], save(make_plan("none,eca,se", seeds=1), Path("c"))):
        assert "--methods none,eca,se" in command(plan)
        assert [variant.file for variant in plan.variants] == [""] * 3
    resolve_method("mine.py:MyGate")
    Path("grid.yaml").write_text("methods: [none, {method: my_gate, file: 'other.py:MyGate'}]")
    assert main(["compare", "grid.yaml"]) == 1, "what is known here is in no file that a plan may name"


BROKEN = ["", "{", "[]", "null", '{"variants": []}', '{"variants": [], "data": "digits"}', '{"data": 3}', "\x00"]


@pytest.mark.parametrize("text", [*BROKEN, '{"variants": [{"method": "No Name"}], "data": "digits"}'])
@pytest.mark.parametrize("command", [["--report", "c"], ["--out", "c"], ["c/plan.json"]])
def test_a_broken_plan_says_what_to_do(text: str, command: list[str], capsys: pytest.CaptureFixture) -> None:
    Path("c").mkdir()
    Path("c/plan.json").write_text(text)
    assert main(["compare", "--train.limit_train=64", *command] if "--out" in command else ["compare", *command]) == 1
    error = capsys.readouterr().err
    assert error.startswith("excite: error: c/plan.json is broken: ")
    assert "put a whole one there (results.json holds it, as its plan), or choose another --out" in error
    assert error.count("\n") == 1
