"""Write the numbers of README and docs from result files, or check that they agree.

    python benchmarks/write_numbers.py            # rewrite every block
    python benchmarks/write_numbers.py --check    # exit 1 and name each block that differs from its file

A block stands between two comments, on lines of its own or within a line:

    <!-- numbers: FILE TABLE columns="a;b" rows="REGEX" as="A;B" -->     a table, and where it comes from
    <!-- numbers: FILE TABLE range=COLUMN rows="REGEX" -->x to y<!-- end -->    smallest to largest
    <!-- numbers: FILE TABLE cell=COLUMN rows="REGEX" -->x<!-- end -->         one cell
    <!-- numbers: FILE TABLE percent=COLUMN rows="REGEX" -->x<!-- end -->      a ratio, as what it adds: 3 % [1, 5]
    <!-- numbers: FILE value=NAME -->x<!-- end -->                             one value
    <!-- numbers: FILE text=NAME -->                                           a recorded output

FILE is the name of a JSON file in benchmarks/results or docs/results (`record.py` says what it holds; what
`excite bench --out` writes is understood, too). `A+B` puts the same table of two files side by side. `rows` is searched
in a row's first cell.
"""

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks/results", "docs/results")
PAGES = ("README.md", "docs/**/*.md", "benchmarks/*.md")
END = "<!-- end -->"
BLOCK = re.compile(rf"(<!-- numbers: (?P<what>.*?) -->)(?P<body>.*?){END}", re.DOTALL)
OPEN = re.compile(r"<!-- numbers: ")
PLACE = re.compile(r"\{[^}]*\}")


class NumbersError(Exception):
    """A block that names what is not there."""


def load(root: Path, name: str) -> tuple[str, dict[str, Any]]:
    """Return a result file's path and content; a report of `excite bench` gets a table per task."""
    for folder in FOLDERS:
        path = root / folder / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            return f"{folder}/{name}.json", from_bench(content) if "results" in content else content
    raise NumbersError(f"no result file {name}.json in {' or '.join(FOLDERS)}")


def from_bench(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report of `excite bench` as a result file."""
    where = report["environment"]
    tables: dict[str, Any] = {}
    columns = [["network", ""], ["ms", "{:.1f}"], ["ratio", "{:.3f} ({:.3f}-{:.3f})"], ["peak MB", "{:.1f}"]]
    for r in report["results"]:
        ratio = [r["ratio"], r["ratio_low"], r["ratio_high"]]
        found = tables.setdefault(r["task"], {"columns": columns, "rows": []})
        found["rows"].append([r["label"], 1e3 * r["seconds"], ratio, r["peak_bytes"] / 1e6])
    return {
        "command": report.get("command", "excite bench"),
        "date": where["date"][:10],
        "commit": report.get("commit"),
        "machine": f"{where['processor']}, {where['threads']} threads",
        "versions": where["versions"],
        "interval": f"the middle 90 % of {report['settings']['rounds']} rounds",
        "tables": tables,
    }


def entry(content: dict[str, Any], kind: str, name: str, path: str) -> Any:
    """Return one table, value or text of a file."""
    known = content.get(kind, {})
    if name not in known:
        raise NumbersError(f"{path} has no {kind[:-1]} {name!r}; it has {', '.join(known) or 'none'}")
    return known[name]


def chosen_rows(table: dict[str, Any], pattern: str | None) -> list[list[Any]]:
    """Return the rows whose first cell the pattern finds."""
    rows = [row for row in table["rows"] if pattern is None or re.search(pattern, str(row[0]))]
    if not rows:
        raise NumbersError(f"no row matches {pattern!r}")
    return rows


def index(table: dict[str, Any], name: str) -> int:
    """Return the position of a column."""
    names = [c[0] for c in table["columns"]]
    if name not in names:
        raise NumbersError(f"no column {name!r}; there are {', '.join(names)}")
    return names.index(name)


def shown(value: Any, form: str) -> str:
    """Return a cell as text."""
    if value is None:
        return ""
    if isinstance(value, list):
        return form.format(*value)
    return form.format(value) if form and not isinstance(value, str) else str(value)


def percent(ratio: Any, name: str) -> str:
    """Return what lies above 1 in a ratio and its interval: [1.032, 0.992, 1.059] is 3 % [-1, 6]."""
    if not isinstance(ratio, list) or len(ratio) != 3:
        raise NumbersError(f"{name!r} holds no ratio with an interval: {ratio!r}")
    more, low, high = (f"{100 * (number - 1):.0f}" for number in ratio)
    return f"{more} % [{low}, {high}]"


def markdown(table: dict[str, Any], rows: list[list[Any]], columns: list[str], names: list[str]) -> list[str]:
    """Return the lines of a Markdown table."""
    at = [index(table, name) for name in columns]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in at]
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join("---:" if n else "---" for n in numeric) + "|"]
    lines += ["| " + " | ".join(shown(row[i], table["columns"][i][1]) for i in at) + " |" for row in rows]
    return lines


def joined(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Return tables of one form side by side, joined by their first column."""
    first, *others = tables
    columns = [first["columns"][0]]
    for number, table in enumerate(tables, 1):
        columns += [[f"{name}, run {number}", form] for name, form in table["columns"][1:]]
    rows = []
    for row in first["rows"]:
        cells = list(row)
        for table in others:
            cells += next(r for r in table["rows"] if r[0] == row[0])[1:]
        rows.append(cells)
    return {"columns": columns, "rows": rows}


def source(path: str, content: dict[str, Any], brackets: bool) -> str:
    """Return where numbers come from, in a line."""
    versions = content.get("versions") or {}
    parts = [content["date"], content.get("machine")]
    parts += [f"{k} {versions[k]}" for k in ("torch", "onnxruntime", "openvino") if k in versions]
    parts.append(f"commit {content['commit']}" if content.get("commit") else None)
    text = f"*From `{path}`: {', '.join(p for p in parts if p)}; `{content['command']}`"
    if brackets and content.get("interval"):
        text += f". Brackets: {content['interval']}"
    for note in content.get("notes", []):
        text += f". {note}"
    return f"{text}.*"


def render(root: Path, what: str, inline: bool) -> str:
    """Return the text of a block."""
    words = shlex.split(what)
    options = dict(w.split("=", 1) for w in words if "=" in w)
    unknown = set(options) - {"columns", "as", "rows", "range", "cell", "percent", "value", "text", "source"}
    plain = [w for w in words if "=" not in w]
    if unknown or not 1 <= len(plain) <= 2:
        raise NumbersError(f"cannot read {what!r}")
    loaded = [load(root, name) for name in plain[0].split("+")]
    path, content = loaded[0]
    if "value" in options:
        return str(entry(content, "values", options["value"], path))
    if "text" in options:
        text = entry(content, "texts", options["text"], path).rstrip("\n")
        return f"\n```\n{text}\n```\n\n{source(path, content, False)}\n"
    if len(plain) < 2:
        raise NumbersError(f"{what!r} names no table")
    tables = [entry(c, "tables", plain[1], p) for p, c in loaded]
    table = tables[0] if len(tables) == 1 else joined(tables)
    rows = chosen_rows(table, options.get("rows"))
    name = options.get("range") or options.get("cell") or options.get("percent")
    if name is not None:
        at = index(table, name)
        form = table["columns"][at][1]
        if "range" not in options:
            if len(rows) > 1:
                raise NumbersError(f"{len(rows)} rows match {options.get('rows')!r}; one is wanted")
            return shown(rows[0][at], form) if "cell" in options else percent(rows[0][at], name)
        values = [row[at][0] if isinstance(row[at], list) else row[at] for row in rows if row[at] is not None]
        first = PLACE.findall(form)[0]
        return f"{first.format(min(values))} to {first.format(max(values))}"
    if inline:
        raise NumbersError(f"{what!r} is a table and needs lines of its own")
    columns = options["columns"].split(";") if "columns" in options else [c[0] for c in table["columns"]]
    names = options["as"].split(";") if "as" in options else columns
    lines = markdown(table, rows, columns, names)
    if options.get("source") != "no":
        brackets = any(isinstance(cell, list) for row in rows for cell in row)
        lines += ["", source(" and ".join(p for p, _ in loaded), content, brackets)]
    return "\n" + "\n".join(lines) + "\n"


def pages(root: Path) -> Iterator[Path]:
    """Yield the pages that may hold blocks."""
    for pattern in PAGES:
        yield from sorted(root.glob(pattern))


def rewritten(root: Path, page: Path) -> tuple[str, list[str], list[str]]:
    """Return a page with its blocks rewritten, what differed before, and the blocks that cannot be written."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(root)
    differences: list[str] = []
    errors: list[str] = []
    blocks = len(BLOCK.findall(text))
    if len(OPEN.findall(text)) != blocks or text.count(END) != blocks:
        errors.append(f"{name}: a block without its end, or an end without its block")

    def replace(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 1
        try:
            body = render(root, match["what"], inline="\n" not in match["body"])
        except NumbersError as error:
            errors.append(f"{name}:{line}: {error}")
            return match[0]
        if body != match["body"]:
            differences.append(f"{name}:{line}: {difference(match['body'], body)}")
        return f"{match[1]}{body}{END}"

    return BLOCK.sub(replace, text), differences, errors


def difference(old: str, new: str) -> str:
    """Return the first line that differs."""
    before, after = old.split("\n"), new.split("\n")
    for one, two in zip(before, after, strict=False):
        if one != two:
            return f"{one.strip() or '(nothing)'!r} should be {two.strip()!r}"
    return f"{len(before)} lines should be {len(after)}"


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Rewrite or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(arguments)
    differences: list[str] = []
    errors: list[str] = []
    for page in pages(root):
        text, differing, wrong = rewritten(root, page)
        differences += differing
        errors += wrong
        if differing and not args.check:
            temporary = page.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, page)
    print("\n".join([*errors, *differences]), file=sys.stderr, end="\n" if errors or differences else "")
    if args.check:
        print(f"{len(differences)} blocks differ from their files" if differences else "no block differs from its file")
    else:
        print(f"{len(differences)} blocks rewritten")
    return int(bool(errors) or (args.check and bool(differences)))


if __name__ == "__main__":
    raise SystemExit(main())
