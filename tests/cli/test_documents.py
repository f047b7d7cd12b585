"""Every `excite ...` line in the README and the documents is one that the command line takes. Nothing is run."""

import re
import shlex
from pathlib import Path

import pytest

from excite.cli import COMMANDS
from excite.cli.main import load
from excite.cli.parsing import parse
from excite.errors import UsageError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "src" / "excite" / "recipes").rglob("*.yaml"))


def lines_of(text: str) -> list[str]:
    """Return the command lines in a page: of code blocks and of `excite ...` within a sentence."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shell = [line for block in blocks for line in block.splitlines()]
    shell += re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    shell += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    found = []
    for line in shell:
        for part in re.split(r"&&|\||;", line):
            words = re.sub(r"^\s*\$?\s*(uv run )?", "", part)
            words = re.split(r" #| >>? |  \(", words)[0].strip()  # remarks, and where the output goes
            if re.match(r"excite [a-z]", words):
                found.append(words)
    return found


def argv_of(line: str) -> list[str]:
    """Return a line's words; brackets mark what may be left out, an ellipsis more of the same."""
    words = shlex.split(line.replace("[", "").replace("]", "") if "[-" in line else line)
    return [word.removesuffix("...") for word in words][1:]


def command_of(argv: list[str]) -> tuple[str, list[str]]:
    name = " ".join(argv[:2]) if isinstance(COMMANDS.get(argv[0]), dict) else argv[0]
    return name, argv[len(name.split()) :]


CASES = [(page.name, line) for page in PAGES for line in lines_of(page.read_text(encoding="utf-8"))]
CASES += [
    (file.name, match)
    for file in RECIPES
    for command in re.findall(r"^# command:\s+(excite .*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    for match in lines_of(f"    {command}")
]


def test_there_are_lines_to_test() -> None:
    pages = {page for page, _ in CASES}
    assert {"README.md", "training.md", "compare.md", "numbers.md", "detection.md", "explain.md"} <= pages
    assert len(CASES) > 60


@pytest.mark.parametrize(("page", "line"), sorted(set(CASES)), ids=lambda v: v.replace("/", "-"))
def test_the_line_parses(page: str, line: str) -> None:
    name, argv = command_of(argv_of(line))
    target = COMMANDS[name.split()[0]]
    if isinstance(target, dict):
        if " " not in name:
            return  # the group itself
        target = target[name.split()[1]]
    try:
        parse(load(target), f"excite {name}", argv)
    except UsageError as error:
        if not any(part in str(error) for part in excused(argv)):
            raise


def excused(argv: list[str]) -> list[str]:
    """What may be wrong with a line: the reader's runs are not here, and sentences name commands without arguments."""
    if not argv:
        return ["needs "]
    files = [f"{word}: no such file" for word in argv if word.endswith(".yaml")]
    runs = ["is not a run directory"] if "--resume" in argv else []
    return files + runs + (["unknown recipe 'NAME'"] if "NAME" in argv else [])
