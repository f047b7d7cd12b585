"""Check and measure everything on a CUDA device, slice by slice: writes benchmarks/results/gpu.json and gpu.md.

    python benchmarks/gpu.py --minutes 10       # goes on where the last call stopped; call it until nothing is left
    python benchmarks/gpu.py --list             # what there is to do, in its order, and what is done
    python benchmarks/gpu.py --again tf32       # forget cells whose name the pattern finds, and go on
    python benchmarks/gpu.py --data SPEC        # with the images of CIFAR-10, for the time to 94 %
    python benchmarks/gpu.py --device cpu --tiny --out /tmp/gpu.json      # all of it on small networks: the kit's test

Needs torch (and numpy), no network; what timm and torchvision would add is left out where they are missing. The
kernels are checked first, then the most valuable cells are measured. Variants are timed in turn; a ratio is the median
of the rounds' own ratios. After each cell the files are written. Exit 1: a check or a cell failed.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import gmtime, monotonic, strftime
from typing import Any, NamedTuple

if find_spec("excite") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import gpu_cells as cells
import torch
from gpu_cells import FULL, LAYOUTS, PRECISIONS, TINY, Setting, Sizes
from record import ORDER_STATISTICS, RATIO, add_out, commit, table, write
from write_numbers import markdown, shown

from excite import ops
from excite.common.files import write_text
from excite.errors import ExciteError, UsageError

Rows = list[list[Any]]
DONE, FAILED, SKIPPED, BEGUN, AGAIN = "done", "failed", "skipped", "begun", "begun again"
COLUMNS = {
    "targets": {"target": "", "limit": "", "measured": "", "verdict": ""},
    "checks": {"pass, type, layout": "", "largest difference": "{:.1e}", "limit": "{:.0e}", "verdict": ""},
    "networks": {
        "setting and variant": "", "batch": "{}", "time": "{:.2f} ms", "ratio to the base": RATIO, "base": "",
        "images/s": "{:.0f}", "ratio to timm's own": RATIO, "peak memory": "{:.0f} MB", "peak, ratio": "{:.3f}",
    },
    "tails": {
        "map and pass": "", "reads and writes": "{}", "time": "{:.3f} ms",
        "share of a copy's bandwidth": "{:.2f} [{:.2f}, {:.2f}]", "GB/s": "{:.0f}",
    },
    "cifar10": {
        "network": "", "epochs": "{}", "training": "{:.0f} s", "last": "{:.2f} %", "best": "{:.2f} %",
        "to 94 %": "{:.0f} s, epoch {}",
    },
    "cells": {"cell": "", "state": "", "seconds": "{:.0f}", "commit": "", "when": ""},
}  # fmt: skip


# With tiny settings every word of a setting is met once.
ONCE = [
    *(("training", TINY.backbones[0], "bf16", "NHWC", "eager", family) for family in cells.FAMILIES),
    ("training", TINY.backbones[0], "bf16", "NHWC", "compiled", "eca"),
    ("inference", TINY.backbones[0], "tf32", "NCHW", "eager", "eca"),
]


class Cell(NamedTuple):
    """A piece of work that fits a slice: the table that its rows go to, and the seconds that it may take."""

    name: str
    table: str
    seconds: float
    run: Callable[[float], tuple[Rows, bool]]
    """Called with the time (of `monotonic`) by which it should end; returns rows, and whether that is all."""
    whole: bool = True
    """Whether one call does all of it."""


class AbsentError(Exception):
    """Why a cell cannot be run here."""


def plan(device: str, sizes: Sizes, args: argparse.Namespace) -> list[Cell]:
    """Return all cells, the most valuable first."""
    tiny = sizes is TINY

    def whole(run: Callable[[], Rows]) -> Callable[[float], tuple[Rows, bool]]:
        return lambda _: (run(), True)

    found = [Cell("checks", "checks", 120, whole(partial(cells.checks, device, sizes)))]
    if device == "cuda":
        found.append(Cell("compute-sanitizer", "checks", 200, whole(sanitised)))
    ranked: list[tuple[float, Cell]] = []
    hows = {"eager": 0.0, "compiled": 1.5, **({"CUDA graph": 2.5} if device == "cuda" else {})}
    families = dict(zip(cells.FAMILIES, (0.0, 3.0, 4.0), strict=True))
    backbones = dict(zip(sizes.backbones, (0.0, 4.0, 5.0), strict=False))
    precisions, layouts = dict(zip(PRECISIONS, (0.0, 3.0), strict=True)), dict(zip(LAYOUTS, (0.0, 3.0), strict=True))
    tasks = {"training": 0.0, "inference": 2.0}
    for ranks in product(tasks, backbones, precisions, layouts, hows, families):
        rank = sum(
            ranking[word]
            for ranking, word in zip((tasks, backbones, precisions, layouts, hows, families), ranks, strict=True)
        )
        setting = Setting(*ranks)
        if tiny and ranks not in ONCE:
            continue
        seconds = {"eager": 60.0, "compiled": 300.0, "CUDA graph": 75.0}[setting.how]
        run = whole(partial(cells.networks, device, sizes, setting))
        ranked.append((rank, Cell(setting.name, "networks", seconds, run)))
    for precision, layout in product(PRECISIONS, LAYOUTS):
        for number, shape in enumerate(sizes.tails):
            name = f"tail, {precision}, {layout}, {'x'.join(map(str, shape))}"
            rank = 0.5 + precisions[precision] + layouts[layout] + 0.1 * number
            run = whole(partial(cells.tails, device, sizes, precision, layout, shape))
            ranked.append((rank, Cell(name, "tails", 30, run)))
    trained = ("none, modules", "eca, ours", "none, ours", "se, ours", "srm, ours")
    for number, label in enumerate(trained[:1] if tiny else trained):
        slice_ = partial(train, device, sizes, args, label)
        ranked.append((3.4 + number / 10, Cell(f"CIFAR-10, {label}", "cifar10", 300, slice_, whole=False)))
    return found + [cell for _, cell in sorted(ranked, key=lambda pair: pair[0])]


def train(device: str, sizes: Sizes, args: argparse.Namespace, label: str, until: float) -> tuple[Rows, bool]:
    """Train a slice on CIFAR-10; raises AbsentError without its images."""
    if args.data is None and sizes is not TINY:
        raise AbsentError("name the images with --data: a data spec, or a folder of CIFAR-10's binary files")
    kept = args.out.with_name(f"{args.out.stem}-{label.replace(', ', '-')}.pt")
    training = cells.Training(device, sizes, label, cells.open_photos(args.data or "", sizes is TINY), kept)
    return cells.train(training, until), training.done


def sanitised() -> Rows:
    """Run the checks on small maps under compute-sanitizer; raises AbsentError where there is none."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise AbsentError("compute-sanitizer is not installed")
    command = [program, "--error-exitcode", "9", sys.executable, __file__, "--only-checks"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = (done.stdout + done.stderr).strip().splitlines()[-1:]
    return [["compute-sanitizer", float(done.returncode), 0.0, "right" if done.returncode == 0 else f"WRONG: {words}"]]


class Results:
    """The rows of the result file, cell by cell."""

    def __init__(self, path: Path, device: str, sizes: Sizes) -> None:
        self.path, self.device = path, device
        self.machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        self.machine += ", tiny settings" if sizes is TINY else ""
        self.tables: dict[str, dict[str, list[Any]]] = {name: {} for name in COLUMNS}
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["machine"] != self.machine:
                raise UsageError(
                    f"{path} holds results of {content['machine']}, this is {self.machine}; name another --out"
                )
            for name, columns in COLUMNS.items():
                known = content["tables"].get(name, {"rows": [], "columns": []})
                if known["rows"] and known["columns"] != [list(c) for c in columns.items()]:
                    raise UsageError(f"{path} is of another version (its table {name!r} differs); name another --out")
                self.tables[name] = {row[0]: row for row in known["rows"]}

    def state(self, cell: Cell) -> str:
        """Return the state of a cell: its first word, an empty text where nothing is known."""
        row = self.tables["cells"].get(cell.name)
        return "" if row is None else str(row[1]).partition(":")[0]

    def note(self, cell: Cell, state: str, seconds: float, rows: Rows | None = None) -> None:
        """Enter a cell's state and rows, and write the files."""
        for row in rows or ():
            self.tables[cell.table][row[0]] = row
        when = strftime("%Y-%m-%d %H:%M", gmtime())
        self.tables["cells"][cell.name] = [cell.name, state, round(seconds, 1), commit() or "", when]
        self.write()

    def forget(self, pattern: str) -> None:
        """Forget the states of cells; their rows stay until they are measured again."""
        cells_ = self.tables["cells"]
        self.tables["cells"] = {name: row for name, row in cells_.items() if not re.search(pattern, name)}

    def seconds(self, cell: Cell) -> float:
        """Return how long a cell may take: as long as its like took here, else a guess."""
        like = re.compile(re.sub(r"resnet\d+|mobilenet_v2|bf16|tf32|N[HC]+WC?|\d+x\d+x\d+", ".*", re.escape(cell.name)))
        took = [row[2] for name, row in self.tables["cells"].items() if row[1] == DONE and like.fullmatch(name)]
        return 1.2 * max(took) if took else cell.seconds

    def write(self) -> None:
        """Write JSON and Markdown."""
        self.tables["targets"] = {row[0]: row for row in targets(self.tables)}
        tables = {name: table(COLUMNS[name], list(rows.values())) for name, rows in self.tables.items() if rows}
        notes = [f"batch {FULL.batch} at {FULL.side}² (less where it does not fit)", ops.kernels_on(self.device)]
        write(self.path, tables, interval=ORDER_STATISTICS, notes=notes, machine=self.machine)
        write_text(self.path.with_suffix(".md"), page(self.machine, tables))


def page(machine: str, tables: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"# {machine}",
        "",
        f"torch {torch.__version__}, `python benchmarks/gpu.py`. Brackets: {ORDER_STATISTICS}.",
    ]
    for name, t in tables.items():
        names = [c[0] for c in t["columns"]]
        lines += ["", f"## {name.capitalize()}", "", *markdown(t, t["rows"], names, names)]
    return "\n".join(lines) + "\n"


# --- targets


def judged(interval: list[float] | None, limit: float, least: bool = False) -> str:
    """Return whether an interval [value, low, high] keeps a limit: an upper one, or the least that is wanted."""
    if interval is None:
        return "not measured"
    _, low, high = interval
    if (low >= limit) if least else (high <= limit):
        return "met"
    return "missed" if ((high < limit) if least else (low > limit)) else "undecided: the interval holds the limit"


def targets(tables: dict[str, dict[str, list[Any]]]) -> Rows:
    """Return what is wanted of ResNet-50 in bf16, NHWC, and whether it is met."""
    step = "training, resnet50, bf16, NHWC"

    def network(how: str, column: int, base: str | None = None) -> list[float] | None:
        row = tables["networks"].get(f"{step}, {how}, eca: eca, ours")
        if row is None or row[column] is None or (base is not None and row[4] != base):
            return None
        value: list[float] | float = row[column]
        return value if isinstance(value, list) else [value] * 3

    faster = network("eager", 6)
    faster = None if faster is None else [1 / faster[0], 1 / faster[2], 1 / faster[1]]
    wanted: list[tuple[str, list[float] | None, float, bool]] = [
        ("eager ECA step, ratio to plain eager timm", network("eager", 3, "none, timm"), 1.0, False),
        ("eager ECA step, times faster than timm's ECA", faster, 1.15, True),
        ("compiled ECA step, ratio to plain compiled", network("compiled", 3), 1.02, False),
        ("peak memory of the eager ECA step, ratio to plain", network("eager", 8), 1.02, False),
    ]
    for name, row in tables["tails"].items():
        if name.startswith("bf16, NHWC") and name.endswith(": tail"):
            wanted.append((f"tail, {name.split(': ')[0]}, share of a copy's bandwidth", row[3], 0.8, True))
    return [
        [words, f"{'>=' if least else '<='} {limit}", "" if v is None else shown(v, RATIO), judged(v, limit, least)]
        for words, v, limit, least in wanted
    ]


# --- the run


def work(plan_: list[Cell], results: Results, minutes: float) -> int:
    """Run cells until the time is used; returns how many are left."""
    until, ran, left = monotonic() + 60 * minutes, False, 0
    for cell in plan_:
        state = results.state(cell)
        if state in (DONE, FAILED):
            continue
        if ran and monotonic() + (results.seconds(cell) if cell.whole else 60) > until:
            left += 1
            continue
        if state == AGAIN and cell.whole:
            results.note(cell, f"{FAILED}: two calls that began it did not end it; --again tries once more", 0)
            continue
        results.note(cell, AGAIN if state == BEGUN else BEGUN, 0)
        print(f"{cell.name} ...", file=sys.stderr, flush=True)
        began = monotonic()
        try:
            rows, ended = cell.run(until)
        except AbsentError as reason:
            results.note(cell, f"{SKIPPED}: {reason}", 0)
            continue
        except Exception as error:  # a compiler's, a driver's, anything: the other cells can do without this one
            words = " ".join(str(error).split())[:200]
            results.note(cell, f"{FAILED}: {type(error).__name__}: {words}", monotonic() - began)
        else:
            results.note(cell, DONE if ended else BEGUN, monotonic() - began, rows)
            left += not ended
        ran = True
        cells.free_memory(results.device)
    return left


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="after which no further cell is begun")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small networks and maps, for a test of the kit")
    parser.add_argument("--data", help="images of CIFAR-10: a data spec, or a folder of its binary files")
    parser.add_argument("--again", metavar="PATTERN", help="measure cells again whose name the pattern finds")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only cells whose name the pattern finds")
    parser.add_argument("--list", action="store_true", help="print the cells and their states")
    parser.add_argument("--only-checks", action="store_true", help="check the kernels on small maps, write nothing")
    add_out(parser, "gpu")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; --device cpu --tiny tries the kit without one")
    if args.device == "cpu" and not args.tiny:
        parser.error("--device cpu needs --tiny: the kit is about CUDA devices, benchmarks/free.py measures CPUs")
    return args


def main(argv: list[str] | None = None) -> int:
    """Do one slice; returns the exit code."""
    args = arguments(argv)
    sizes = TINY if args.tiny else FULL
    if args.device == "cuda":
        torch.set_float32_matmul_precision("high")  # tf32; cuDNN takes it anyway
        torch.backends.cudnn.benchmark = True
    for library in ("timm", "torchvision"):
        if find_spec(library) is None:
            print(f"{library} is not installed: its rows are left out")
    if args.only_checks:
        rows = cells.checks(args.device, sizes._replace(checks=cells.ODD[:3]))
        return int(any(row[-1] != "right" for row in rows))
    try:
        results, plan_ = Results(args.out, args.device, sizes), plan(args.device, sizes, args)
        plan_ = [cell for cell in plan_ if re.search(args.only, cell.name)]
        if args.again:
            results.forget(args.again)
        if args.list:
            for cell in plan_:
                print(f"{results.state(cell) or 'to do':8} {cell.name}")
            return 0
        left = work(plan_, results, args.minutes)
    except ExciteError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    for words, limit, measured, verdict in results.tables["targets"].values():
        print(f"{words} {limit}: {measured} {verdict}")
    states = [(name, state) for name, state, *_ in results.tables["cells"].values()]
    wrong = [name for name, *_, verdict in results.tables["checks"].values() if verdict != "right"]
    for name, state in states:
        if state.startswith((FAILED, SKIPPED)):
            print(f"{name}: {state}")
    for name in wrong:
        print(f"WRONG: {name}")
    print(f"{left} of {len(plan_)} cells left" + ("; call it again" if left else ""))
    return int(bool(wrong) or any(state.startswith(FAILED) for _, state in states))


if __name__ == "__main__":
    sys.exit(main())
