"""Break the package in one place at a time, and see that the tests named for it fail.

    python tests/mutants/run.py                      all mutants whose outcome is not known yet
    python tests/mutants/run.py --room train --again
    python tests/mutants/run.py --only ema-never-added cutmix-never-applied

The package and its tests are copied to a temporary folder. This process imports the libraries once, and forks for every
mutant; the child imports the broken package and runs the mutant's tests there. A mutant is noticed where a test fails;
where nothing could be imported it is broken. The named tests are some of the default ones, which pass without a mutant
(`--baseline` makes sure of it).
"""

import argparse
import contextlib
import datetime
import hashlib
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE))

from mutants import MUTANTS, Mutant  # noqa: E402

RESULTS = REPOSITORY / "docs" / "results" / "mutants.json"
LIMIT = 400  # seconds of a mutant's tests, many times what they take: a mutant may hang
COPIED = ("src", "tests", "benchmarks", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md", "justfile")
# What the package and the tests import, but nothing of the package itself.
LIBRARIES = (
    "torch", "torch._dynamo", "torchvision.transforms.v2", "torchvision.models", "torchvision.models.detection",
    "lightning", "lightning.pytorch.callbacks", "lightning.pytorch.loggers", "torchmetrics.classification",
    "torch.utils.tensorboard", "sklearn.datasets", "sklearn.model_selection", "scipy.special", "matplotlib.figure",
    "jsonargparse", "rich.progress", "pytest",
)  # fmt: skip
# A mutant that ends a test by one of these is no bug that a test noticed: the package could not even be used.
UNUSABLE = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "UnboundLocalError")


class Outcome(NamedTuple):
    """What came of a mutant: noticed, survived or broken; the test that failed, how, and the seconds it took."""

    state: str
    test: str
    how: str
    seconds: float


class Watch:
    """A pytest plugin: notes the first test that fails, and by which exception."""

    def __init__(self) -> None:
        self.failed: tuple[str, str] | None = None

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        self.failed = self.failed or (node.nodeid, call.excinfo.typename)


def source(mutant: Mutant, root: Path = REPOSITORY) -> Path:
    return root / "src" / "excite" / mutant.file


def broken(mutant: Mutant, text: str) -> str:
    """Return a file's text with the mutant in it. Raises ValueError unless its old text stands there once."""
    if (times := text.count(mutant.old)) != 1 or mutant.old == mutant.new:
        raise ValueError(f"{mutant.id}: {mutant.old!r} stands {times} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def digest(mutant: Mutant) -> str:
    """Return what an outcome depends on: the mutant, the file that it breaks, and the files of its tests."""
    files = [source(mutant), *sorted({HERE.parent / test.partition("::")[0] for test in mutant.tests})]
    parts = [repr(mutant).encode(), *(file.read_bytes() for file in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def copy(folder: Path) -> Path:
    """Copy what tests need of the repository; return the copy's root."""
    for name in COPIED:
        origin = REPOSITORY / name
        if origin.is_dir():
            shutil.copytree(origin, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif origin.is_file():
            shutil.copy2(origin, folder / name)
    return folder


def run_tests(root: Path, tests: Sequence[str], report: Path) -> None:
    """In a forked child: run tests of a copy with the copy's package, and write what came of them."""
    os.setsid()
    with (root / "output.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(root)
    # An environment may lie inside the repository; its libraries stay.
    others = [p for p in sys.path if "site-packages" in p or not Path(p).is_relative_to(REPOSITORY)]
    sys.path[:] = [str(root / "src"), *others]
    os.environ |= {"PYTHONPATH": str(root / "src"), "EXCITE_CACHE": str(root.parent / "cache"), "MPLBACKEND": "Agg"}
    if sys.pycache_prefix is not None:
        sys.pycache_prefix = str(root.parent / "bytecode")  # gone with the copy
    with contextlib.suppress(KeyError):
        del os.environ["PYTEST_XDIST_WORKER"]
    import pytest

    watch = Watch()
    named = [f"tests/{test}" for test in tests]
    # Of the plugins none but those that the tests ask for: loading the others takes as long as a test.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--rootdir", str(root), "--tb", "short"]
    code = int(pytest.main([*options, *named], plugins=[watch]))
    report.write_text(json.dumps([code, *(watch.failed or ("", ""))]))
    sys.stdout.flush()
    os._exit(0)


class Slot:
    """A copy of the repository in which one mutant at a time is tried."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.root = copy(folder)
        self.report = folder / "report.json"
        self.stamp = 0
        self.mutant: Mutant | None = None

    def start(self, tests: Sequence[str], mutant: Mutant | None) -> int:
        """Fork a child that runs the tests on a mutant (None: on the package as it is); return its process."""
        self.mutant, self.started = mutant, time.monotonic()
        self.report.unlink(missing_ok=True)
        if mutant is not None:
            self._write(mutant, broken(mutant, source(mutant).read_text()))
        process = os.fork()
        if process == 0:
            try:
                run_tests(self.root, tests, self.report)
            finally:
                os._exit(1)
        return process

    def end(self) -> Outcome:
        """Take the mutant back and return what came of it."""
        if self.mutant is not None:
            self._write(self.mutant, source(self.mutant).read_text())
        seconds = round(time.monotonic() - self.started, 1)
        if not self.report.is_file():
            return Outcome("broken", "", "the process ended before its tests did, or took too long", seconds)
        code, test, how = json.loads(self.report.read_text())
        if code == 0:
            return Outcome("survived", "", "", seconds)
        if code != 1 or how in UNUSABLE:
            return Outcome("broken", test, how or f"pytest ended with {code}", seconds)
        return Outcome("noticed", test.removeprefix("tests/"), how, seconds)

    def _write(self, mutant: Mutant, text: str) -> None:
        file = source(mutant, self.root)
        file.write_text(text)
        # A compiled file is known by the seconds of this time: no two versions may share them.
        self.stamp += 1
        os.utime(file, (1e9 + 10 * self.stamp,) * 2)


def attempt(jobs: Iterable[tuple[Sequence[str], Mutant | None]], slots: int) -> Iterable[tuple[Mutant | None, Outcome]]:
    """Yield what came of each job, so many at a time."""
    waiting = list(jobs)[::-1]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        free = [Slot(Path(folder) / f"copy{i}") for i in range(min(slots, len(waiting)))]
        running: dict[int, Slot] = {}
        try:
            while waiting or running:
                while waiting and free:
                    slot = free.pop()
                    running[slot.start(*waiting.pop())] = slot
                for process, slot in list(running.items()):
                    if time.monotonic() - slot.started > LIMIT:
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process, signal.SIGKILL)
                    if os.waitpid(process, os.WNOHANG)[0]:
                        free.append(running.pop(process))
                        yield slot.mutant, slot.end()
                time.sleep(0.05)
        finally:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)


def warm() -> None:
    """Import the libraries, so that no child has to."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("EXCITE_DATA", str(REPOSITORY.parent / "shared" / "data"))
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert "excite" not in sys.modules


def known() -> dict[str, dict[str, Any]]:
    """Return the outcomes in the results file by the mutants' names."""
    return json.loads(RESULTS.read_text())["mutants"] if RESULTS.is_file() else {}


def write(outcomes: dict[str, dict[str, Any]]) -> None:
    """Write the outcomes of all mutants there are, in their order, and the table that the docs are written from."""
    rows = {mutant.id: outcomes[mutant.id] for mutant in MUTANTS if mutant.id in outcomes}
    content = {
        "command": "python tests/mutants/run.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()}, {os.cpu_count()} processors; noticed is noticed, whatever the machine",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "mutants": rows,
        "tables": {"parts": table(rows)},
    }
    temporary = RESULTS.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(RESULTS)


def table(outcomes: dict[str, dict[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return per part, and for all: mutants that ran, how many no test noticed before the list was made, and now."""
    sums: dict[str, list[int]] = {}
    for mutant in [mutant for mutant in MUTANTS if mutant.id in outcomes]:
        survives = outcomes[mutant.id]["state"] != "noticed"
        for part in (mutant.room, "all"):
            one = 1, int(mutant.unnoticed_before), int(survives)
            sums[part] = [a + b for a, b in zip(sums.get(part, [0, 0, 0]), one, strict=True)]
    sums["all"] = sums.pop("all")
    columns = [["part", ""], ["mutants", "{}"], ["unnoticed before", "{}"], ["unnoticed now", "{}"]]
    return {"columns": columns, "rows": [[part, *numbers] for part, numbers in sums.items()]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutants; return 0 where all were noticed, 1 where some survived, 2 where something is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ID", help="these mutants alone; the results file stays as it is")
    parser.add_argument("--room", help="the mutants of one room")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    parser.add_argument("--again", action="store_true", help="those whose outcome is known, too")
    parser.add_argument("--baseline", action="store_true", help="run the tests without a mutant first: all must pass")
    options = parser.parse_args(arguments)
    names = {mutant.id for mutant in MUTANTS}
    if unknown := sorted(set(options.only or ()) - names):
        parser.error(f"no mutant {unknown[0]}")
    chosen = [m for m in MUTANTS if (not options.only or m.id in options.only) and options.room in (None, m.room)]
    outcomes = known()
    if not options.only and not options.again:
        chosen = [m for m in chosen if outcomes.get(m.id, {}).get("digest") != digest(m)]
    for mutant in chosen:
        broken(mutant, source(mutant).read_text())
    warm()
    if options.baseline and chosen:
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        for _, outcome in attempt([(tests, None)], 1):
            if outcome.state != "survived":
                print(f"without a mutant: {outcome.test or 'no test'} fails ({outcome.how})")
                return 2
    states: dict[str, list[str]] = {"noticed": [], "survived": [], "broken": []}
    for mutant, outcome in attempt([(mutant.tests, mutant) for mutant in chosen], options.jobs):
        assert mutant is not None
        states[outcome.state].append(mutant.id)
        print(f"{outcome.state:<9}{outcome.seconds:6.1f} s  {mutant.id}  {outcome.how} {outcome.test}", flush=True)
        if not options.only:
            outcomes[mutant.id] = {"room": mutant.room, **outcome._asdict(), "digest": digest(mutant)}
            write(outcomes)
    print(f"\n{len(chosen)} mutants: " + ", ".join(f"{len(ids)} {state}" for state, ids in states.items()))
    for state in ("survived", "broken"):
        if states[state]:
            print(f"{state}: " + " ".join(sorted(states[state])))
    return 2 if states["broken"] else 1 if states["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
