"""Write the generated parts of the docs, or check that they are what the code gives today.

    python tools/write_docs.py            # rewrite them
    python tools/write_docs.py --check    # exit 1 and name each file that differs

Generated: the reference of the command line, and the drawing of the recorded comparison.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["COLUMNS"] = "100"  # the width of help texts

from excite.cli import COMMANDS, HELP
from excite.cli.help import help_text
from excite.cli.main import load
from excite.cli.signature import read_options
from excite.common.files import write_text
from excite.common.plotting import COLOURS
from excite.explain.svg import Drawing

ROOT = Path(__file__).resolve().parents[1]


def gains_figure(root: Path) -> str:
    """Return the drawing of a recorded comparison: each method's gain over the plain network, with its interval."""
    result = json.loads((root / "docs" / "results" / "compare-cifar10.json").read_text(encoding="utf-8"))
    rows = [row for row in result["tables"]["methods"]["rows"] if row[7]]
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


def generated(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Yield every generated file with its text."""
    yield root / "docs" / "img" / "gains.svg", gains_figure(root)
    yield root / "docs" / "reference" / "cli.md", command_page()


def main(arguments: list[str] | None = None) -> int:
    """Rewrite or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(arguments)
    differing = []
    for path, text in generated():
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
