"""The docs: what is generated is up to date, snippets print what the pages say, links lead somewhere."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_docs"] = module
    spec.loader.exec_module(module)
    return module


docs = script()
TOUR = docs.tour()


def test_generated_pages_and_figures_are_up_to_date() -> None:
    differing = [str(p.relative_to(ROOT)) for p, text in docs.generated() if not p.is_file() or p.read_text() != text]
    assert not differing, "run: python tools/write_docs.py"


def test_the_python_reference_shows_names_of_defaults() -> None:
    assert not re.search(r"<(built-in|bound|function|class|module|object)\b", docs.python_page())


@pytest.mark.parametrize("page", TOUR, ids=lambda page: page.stem)
def test_snippets_print_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert docs.with_costs(docs.with_prints(text)) == text, "run: python tools/write_docs.py"


@pytest.mark.parametrize("page", [p for p in TOUR if re.match(r"\d-", p.name)], ids=lambda page: page.stem)
def test_a_chapter_has_its_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.match(r"# \d\. .*\?\n\n\*At the end you ", text)  # the question, then what the reader will be able to do
    cost = text.partition("## What it costs, line by line\n")[2].partition("\n## Keep\n")[0]
    assert re.search(r"^\|.*\|$", cost, re.MULTILINE)
    assert "```text" in text
    assert re.search(r"!\[[^\]]+\]\([^)]+\.svg\)", text)
    blocks = [match["code"] for match in docs.PYTHON.finditer(text)]
    assert blocks
    assert all(sum(bool(line.strip()) for line in block.splitlines()) <= 15 for block in blocks)


def test_a_changed_print_and_a_changed_cost_are_noticed() -> None:
    page = "```python\nprint(2 + 2)\n```\n\n<!-- prints -->\n```text\n5\n```\n"
    assert docs.with_prints(page) == page.replace("5", "4")
    cost = "<!-- cost: se channels=64 size=8 -->\n<!-- cost ends -->"
    assert "| **sum** | | **512** | **512** |" in docs.with_costs(cost)
    with pytest.raises(ZeroDivisionError):
        docs.with_prints("```python\n1 / 0\n```\n")


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as the site makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower() for title in titles)
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    for target in LINK.findall(text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name}: {target}"
    assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|link|iframe)[^>]*https?:", text), "asks another server"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/.-]+\.md)\s*$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(p.relative_to(DOCS)) for p in PAGES)
