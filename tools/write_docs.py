"""Write the generated parts of the docs, or check that they are what the code gives today.

    python tools/write_docs.py            # rewrite them
    python tools/write_docs.py --check    # exit 1 and name each file that differs

Generated: a page and a figure per method (docs/methods), the command line and the Python interface (docs/reference),
the figures of the guided tour, and in its pages what snippets print and what attention costs:

    <!-- prints -->                          before a text block: what the Python block above it prints
    <!-- cost: METHOD channels=C size=S -->  a table up to `<!-- cost ends -->`; further NAME=VALUE are options
"""

import argparse
import contextlib
import inspect
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["COLUMNS"] = "100"  # the width of help texts

import torch

import excite
from excite.cli import COMMANDS, HELP
from excite.cli.bibtex import bibtex
from excite.cli.help import help_text
from excite.cli.main import load
from excite.cli.method_cards import Card, card, maps
from excite.cli.show import cost_of, example_of
from excite.cli.signature import read_options
from excite.common.files import write_text
from excite.common.plotting import COLOURS
from excite.explain.diagram import cost_lines, module_diagram, network_diagram
from excite.explain.svg import Drawing
from excite.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
SIZE = 14  # side of the map in the figures and costs of methods' pages
PYTHON = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?P<rest>\n<!-- prints -->\n```text\n(?P<text>.*?)^```\n)?", re.M | re.S
)
COST = re.compile(r"(<!-- cost: (?P<what>.*?) -->\n)(?P<table>.*?)(<!-- cost ends -->)", re.S)

# Networks of the tour's figures: file, name, options.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "emca-one-scale": ("emca_eca_resnet18", {"stages": 0, "blocks": 0}),
    "emca-last-block": ("emca_eca_resnet18", {"stages": 1, "blocks": 1}),
    "emca-last-stage": ("emca_eca_resnet18", {"stages": 1, "blocks": "all"}),
    "emca-all-stages": ("emca_eca_resnet18", {"stages": "all", "blocks": 1}),
    "emca-released": ("emca_eca_resnet18", {"form": "released"}),
    "place-all": ("se_resnet18", {}),
    "place-last": ("se_resnet18", {"placement": "last"}),
    "place-between": ("bam_resnet18", {}),
}


def method_figure(name: str, channels: int = 64, size: int = SIZE, **options: Any) -> str:
    """Return the drawing of a method on a map [1 channels size size]."""
    with torch.device("meta"):
        module = excite.create_attention(name, channels, **options)
    return module_diagram(module, name, (1, channels, size, size))


def network_figure(name: str, options: dict[str, Any]) -> str:
    """Return the drawing of a network."""
    with torch.device("meta"):
        model = excite.create_model(name, num_classes=10, **options)
    words = ", ".join(f"{key}={value}" for key, value in options.items())
    return network_diagram(model, f"{name}{f' ({words})' if words else ''}")


def method_page(entry: Card) -> str:
    """Return the page of one method."""
    rows = [
        ("paper", entry.paper),
        ("place", entry.place),
        ("maps", maps(entry.dims)),
        ("cost", cost_of(entry)),
        ("at the start", "the identity: a fresh module returns its input" if entry.identity_at_init else ""),
        ("made of", f"`{entry.parts[0]}` → `{entry.parts[1]}` → recalibrate" if entry.parts else ""),
    ]
    parts = [f"# {entry.name}", "", f"{entry.summary[0].upper()}{entry.summary[1:]}.", "", "```text"]
    parts += [
        *re.split(r",  (?=\S)", entry.equation),
        "```",
        "",
        f"![{entry.name}, step by step](img/{entry.name}.svg)",
    ]
    parts += ["", f"*Drawn from the module, for 64 channels of {SIZE}×{SIZE}: `excite show {entry.name} --channels 64 "]
    parts[-1] += f"--size {SIZE} --svg {entry.name}.svg`.*"
    if entry.role == "network":
        parts += ["", "![which blocks read whose descriptors](../learn/img/emca-last-stage.svg)", ""]
        parts += ["*In a network it reads earlier descriptors: [chapter 5](../learn/5-scales.md).*"]
    parts += ["", "| | |", "|---|---|", *(f"| {title} | {text} |" for title, text in rows if text)]
    parts += ["", "## In Python", "", "```python", "import excite", "", f"attention = {example_of(entry)}", "```"]
    if entry.options:
        parts += ["", "## Options", "", "| option | default | what it may be |", "|---|---|---|"]
        parts += [f"| `{option}` | `{default}` | {cell(kind)} |" for option, kind, default in entry.options]
        parts += ["", entry.about] if entry.about else []
    if entry.equals or entry.differs:
        parts += ["", "## Paper and code", ""]
        parts += [f"Compared in float64 with: {entry.equals}.", ""] if entry.equals else []
        parts += [f"What differs or could not be had: {entry.differs}.", ""] if entry.differs else []
        parts.pop()
    if entry.name != "none":
        parts += [
            "",
            "## Cite",
            "",
            f"`excite show {entry.name} --bibtex` prints",
            "",
            "```bibtex",
            bibtex(entry.name),
            "```",
        ]
    return "\n".join(parts) + "\n"


def gains_figure(root: Path) -> str:
    """Return the drawing of a recorded comparison: each method's gain over the plain network, with its interval."""
    result = json.loads((root / "docs" / "results" / "compare-cifar10-full.json").read_text(encoding="utf-8"))
    rows = [row for row in result["tables"]["variants"]["rows"] if row[7]]
    low, high = min(0, *(row[7][1] for row in rows)), max(row[7][2] for row in rows)
    left, width, top = 100, 330, 66

    def x(points: float) -> float:
        return left + width * (points - low) / (high - low)

    about = "; ".join(f"{row[0]} {row[7][0]:+.2f} [{row[7][1]:+.2f}, {row[7][2]:+.2f}], {row[9]}" for row in rows)
    drawing = Drawing("Gains in top-1 over the plain network", about)
    drawing.text(12, 22, "The fair comparison: what attention gains", bold=True, anchor="start")
    drawing.text(
        12, 42, "points of top-1 over none, 95 % intervals; ResNet-20, CIFAR-10, 3 seeds", size=12, anchor="start"
    )
    bottom = top + 34 * len(rows)
    for tick in range(math.ceil(low), math.floor(high) + 1):
        drawing.path(f"M{x(tick):.1f} {top} V{bottom}", "#222222" if tick == 0 else "#dddddd", arrow=False, width=1)
        drawing.text(x(tick), bottom + 18, f"{tick:+d}" if tick else "0", size=12)
    for i, row in enumerate(rows):
        y, colour = top + 34 * i + 17, COLOURS[i + 1]
        drawing.text(left - 10, y + 5, row[0], anchor="end")
        drawing.path(f"M{x(row[7][1]):.1f} {y} H{x(row[7][2]):.1f}", colour, arrow=False, width=3)
        drawing.rectangle(x(row[7][0]) - 5, y - 5, 10, 10, colour)
        drawing.text(left + width + 14, y + 5, row[9], size=12, anchor="start")
    return drawing.source()


def cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def methods_index() -> str:
    """Return the list of the methods' pages."""
    lines = [
        "# One page per method",
        "",
        "Figure, equation, cost, options, what differs from the paper's code, BibTeX.",
    ]
    lines += ["The [overview](../methods.md) compares them in one table.", ""]
    return "\n".join([*lines, *(f"- [{name}]({name}.md): {entry.summary}" for name, entry in METHODS.items())]) + "\n"


def command_page() -> str:
    """Return the reference of the command line."""
    lines = ["# The command line", "", "What `--help` prints, for every command.", ""]
    for name, target in COMMANDS.items():
        for path in [f"{name} {sub}" for sub in target] if isinstance(target, dict) else [name]:
            function = load(target[path.split()[1]] if isinstance(target, dict) else target)
            text = help_text(function, f"excite {path}", read_options(function)).rstrip()
            lines += [
                f"## excite {path}",
                "",
                f"{HELP[path][0].upper()}{HELP[path][1:]}.",
                "",
                "```text",
                text,
                "```",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def python_page() -> str:
    """Return the reference of the public names."""
    lines = [
        "# The Python interface",
        "",
        "Every public name of `excite`. They stay: a test holds their parameters.",
        "",
    ]
    for name in sorted(excite._FUNCTIONS):
        value = getattr(excite, name)
        doc = inspect.cleandoc(value.__doc__ or "")
        head = f"class {name}" if inspect.isclass(value) else f"{name}{signature(value)}"
        lines += [f"## {name}", "", "```text", head, "", doc, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def signature(function: Any) -> str:
    """Return a function's parameters, one per line, without module names."""
    parameters = inspect.signature(function)
    text = ",\n    ".join(map(str, parameters.parameters.values()))
    star = any(p.kind is p.KEYWORD_ONLY for p in parameters.parameters.values())
    if star and "*" not in text.split(",\n")[0]:
        rows = [str(p) for p in parameters.parameters.values()]
        kinds = [p.kind for p in parameters.parameters.values()]
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            rows.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
        text = ",\n    ".join(rows)
    returns = parameters.return_annotation
    end = "" if returns is inspect.Signature.empty else f" -> {getattr(returns, '__name__', returns)}"
    text = f"(\n    {text},\n){end}"
    text = re.sub(
        r"<(?:built-in function|function|bound method) ([\w.]+)(?: at 0x\w+| of <class '[\w.]+'>)?>", r"\1", text
    )
    return re.sub(
        r"\b(?:torch\.nn\.modules\.module|collections\.abc|pathlib|typing|excite(?:\.\w+)*)\.(?=[A-Z])", "", text
    )


def with_costs(text: str) -> str:
    """Return a page with its tables of costs."""

    def table(match: re.Match[str]) -> str:
        name, *words = match["what"].split()
        values = dict(word.split("=") for word in words)
        channels, size = int(values.pop("channels")), int(values.pop("size"))
        with torch.device("meta"):
            module = excite.create_attention(name, channels, **values)
        rows = cost_lines(module, (1, channels, size, size))
        lines = ["| step | gives | parameters | multiply-accumulates |", "|---|---|---:|---:|"]
        lines += [f"| {r.part} | {r.gives} | {r.params:,} | {r.macs:,} |" for r in rows]
        total = f"| **sum** | | **{sum(r.params for r in rows):,}** | **{sum(r.macs for r in rows):,}** |"
        return match[1] + "\n".join([*lines, total, ""]) + match[4]

    return COST.sub(table, text)


def with_prints(text: str) -> str:
    """Return a page with what its Python blocks print; they run one after another and share their names."""
    names: dict[str, Any] = {}

    def run(match: re.Match[str]) -> str:
        out = io.StringIO()
        torch.manual_seed(0)
        with contextlib.redirect_stdout(out):
            exec(match["code"], names)
        if match["rest"] is None:
            return match[0]
        return f"```python\n{match['code']}```\n\n<!-- prints -->\n```text\n{out.getvalue()}```\n"

    return PYTHON.sub(run, text)


def generated(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Yield every generated file with its text."""
    docs = root / "docs"
    for name in METHODS:
        yield docs / "methods" / f"{name}.md", method_page(card(name, 64, SIZE))
        yield docs / "methods" / "img" / f"{name}.svg", method_figure(name)
    yield docs / "img" / "gains.svg", gains_figure(root)
    yield docs / "methods" / "index.md", methods_index()
    yield docs / "reference" / "cli.md", command_page()
    yield docs / "reference" / "python.md", python_page()
    for file, (name, options) in NETWORKS.items():
        yield docs / "learn" / "img" / f"{file}.svg", network_figure(name, options)


def tour(root: Path = ROOT) -> list[Path]:
    """Return the pages whose snippets are run."""
    return [root / "docs" / "start.md", *sorted((root / "docs" / "learn").glob("*.md"))]


def main(arguments: list[str] | None = None) -> int:
    """Rewrite or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--no-snippets", action="store_true", help="leave what snippets print as it is")
    args = parser.parse_args(arguments)
    pages = [(page, with_costs(page.read_text(encoding="utf-8"))) for page in tour()]
    pages = [(page, text if args.no_snippets else with_prints(text)) for page, text in pages]
    differing = []
    for path, text in [*generated(), *pages]:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            differing.append(path.relative_to(ROOT))
            if not args.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, text)
    for path in differing:
        print(f"{path} {'differs' if args.check else 'written'}", file=sys.stderr)
    return int(args.check and bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
