"""The mutants apply, some of the most dangerous are noticed, and the results in the repository are those of all."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import run as runner  # noqa: E402

from mutants import CRITICAL, MUTANTS, QUICK, ROOMS, UNNOTICED, Mutant  # noqa: E402

IDS = [mutant.id for mutant in MUTANTS]


def test_every_mutant_applies() -> None:
    """What it replaces stands in its file once, the result is Python still, and its tests exist."""
    wrong = []
    for mutant in MUTANTS:
        try:
            text = runner.broken(mutant, runner.source(mutant).read_text())
            if mutant.file.endswith(".py"):
                compile(text, mutant.file, "exec")
        except (ValueError, OSError, SyntaxError) as error:
            wrong.append(f"{mutant.id}: {error}")
        for test in mutant.tests:
            file, _, name = test.partition("::")
            if f"\ndef {name.partition('[')[0]}" not in (HERE.parent / file).read_text():
                wrong.append(f"{mutant.id}: no test {test}")
    assert wrong == []


def test_the_list_is_whole() -> None:
    assert len(MUTANTS) >= 120
    assert [i for i, count in Counter(IDS).items() if count > 1] == []
    assert set(IDS) >= UNNOTICED | CRITICAL
    assert len(CRITICAL) >= 12
    assert CRITICAL >= QUICK
    assert min(len(rows) for rows in ROOMS.values()) >= 7


def test_what_cannot_be_applied_is_said() -> None:
    for old in ("no such text", "import", MUTANTS[0].new):
        mutant = Mutant("x", "train", MUTANTS[0].file, old, MUTANTS[0].new, MUTANTS[0].tests)
        with pytest.raises(ValueError, match="x: "):
            runner.broken(mutant, runner.source(mutant).read_text())


def test_the_results_are_of_these_mutants_and_none_survived() -> None:
    results = json.loads(runner.RESULTS.read_text())
    outcomes = results["mutants"]
    assert list(outcomes) == [i for i in IDS if i in outcomes]
    assert len(outcomes) >= 120
    assert [i for i, row in outcomes.items() if row["state"] != "noticed"] == []
    assert results["tables"]["parts"] == runner.table(outcomes)


def ended(*arguments: str) -> str:
    """Run mutants in a process of their own, which has not imported the package; return what it printed."""
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_some_of_the_most_dangerous_are_noticed() -> None:
    assert f"{len(QUICK)} mutants: {len(QUICK)} noticed, 0 survived, 0 broken" in ended("--only", *sorted(QUICK))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("room", ROOMS)
def test_all_are_noticed(room: str) -> None:
    of_room = [mutant.id for mutant in MUTANTS if mutant.room == room]
    assert f"{len(of_room)} noticed, 0 survived, 0 broken" in ended("--only", *of_room)


@pytest.mark.slow
def test_a_mutant_that_changes_nothing_survives() -> None:
    """The runner can see a survivor: a mutant of a text that no test reads."""
    mutant = next(m for m in MUTANTS if m.id == "best-epoch-is-the-first")
    harmless = mutant._replace(old='"""Write summary.json."""', new='"""Write it."""')
    outcomes = subprocess.run(
        [sys.executable, "-c", SURVIVOR.format(here=str(HERE), mutant=tuple(harmless))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert outcomes.stdout.split()[-2:] == ["survived", "noticed"]


SURVIVOR = """
import sys
sys.path.insert(0, {here!r})
import run
from mutants import MUTANTS, Mutant
run.warm()
real = next(m for m in MUTANTS if m.id == "best-epoch-is-the-first")
for mutant in (Mutant(*{mutant!r}), real):
    for _, outcome in run.attempt([(mutant.tests, mutant)], 1):
        print(outcome.state)
"""
