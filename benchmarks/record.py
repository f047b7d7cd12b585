"""Result files: tables of numbers with the machine, versions, commit and command that made them.

A file is JSON: `{"command", "date", "commit", "machine", "versions", "interval", "notes", "tables", "values",
"texts"}`. A table is `{"columns": [[name, format], ...], "rows": [[...], ...]}`; a cell is a number, a text, None, or
the list of numbers that its column's format takes. `interval` says what brackets hold. `write_numbers.py` writes the
numbers into the docs.
"""

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from write_numbers import markdown

from excite.common.files import write_text
from excite.measure.bench import environment
from excite.measure.bench.environment import in_words

HERE = Path(__file__).parent
DOCS_RESULTS = HERE.parent / "docs" / "results"
RATIO = "{:.3f} [{:.3f}, {:.3f}]"
ORDER_STATISTICS = "an interval that holds the median of the ratios with probability 0.95 or more (order statistics)"


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """Add `--out`, by default the result file that the docs are written from."""
    parser.add_argument("--out", type=Path, default=HERE / "results" / f"{name}.json")


def show(tables: Mapping[str, Any]) -> None:
    """Print tables as Markdown."""
    for name, t in tables.items():
        names = [c[0] for c in t["columns"]]
        print("\n".join([f"{name}\n", *markdown(t, t["rows"], names, names)]) + "\n", flush=True)


def table(columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return a table: {column: format} and rows of plain numbers, texts or lists of numbers."""
    wrong = [row for row in rows if len(row) != len(columns)]
    if wrong:
        raise ValueError(f"a row has {len(wrong[0])} cells for {len(columns)} columns: {wrong[0]}")
    return {"columns": [list(c) for c in columns.items()], "rows": [list(row) for row in rows]}


def ratio_cell(ratio: Any) -> list[float]:
    """Return value and interval of a ratio, to five digits."""
    return [round(float(v), 5) for v in (ratio.value, ratio.ci_low, ratio.ci_high)]


def command() -> str:
    """Return how this process was started."""
    return "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


@cache
def commit() -> str | None:
    """Return the commit that ran, with a + where files differ from it; None outside a clone."""
    git = ["git", "-C", str(HERE)]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return done.stdout.strip() + ("+" if changed.stdout.strip() else "")


def shown_data(spec: str) -> str:
    """Return a data spec without the place of the data on this machine: KIND:/any/where/NAME is KIND:data/NAME."""
    kind, mark, path = spec.partition(":")
    return f"{kind}:data/{Path(path).name}" if mark and Path(path).is_absolute() else spec


def write(path: Path, tables: Mapping[str, Any], *, interval: str = "", **more: Any) -> Path:
    """Write a result file of this process; returns its path."""
    where = environment()
    content = {
        "command": command(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": in_words(where),
        "versions": where["versions"],
        **({"interval": interval} if interval else {}),
        **more,
        "tables": dict(tables),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, dumps(content))
    print(f"wrote {path}; `python benchmarks/write_numbers.py` puts it into the docs", file=sys.stderr)
    return path


def dumps(content: Mapping[str, Any]) -> str:
    """Return a result file's text: one line per row."""
    tables = content.get("tables", {})
    lines = []
    for name, t in tables.items():
        rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in t["rows"])
        columns = json.dumps(t["columns"], ensure_ascii=False)
        lines.append(f'  {json.dumps(name)}: {{\n   "columns": {columns},\n   "rows": [\n{rows}\n   ]\n  }}')
    head = json.dumps({k: v for k, v in content.items() if k != "tables"}, indent=1, ensure_ascii=False)
    if not tables:
        return head + "\n"
    return head.removesuffix("\n}") + ',\n "tables": {\n' + ",\n".join(lines) + "\n }\n}\n"
