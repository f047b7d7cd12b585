"""`excite show`, the documents that it makes, and the examples in them."""

import contextlib
import importlib.util
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import excite
from excite import registry
from excite.cli.main import main
from excite.cli.method_cards import card, source_link
from excite.registry import METHODS

ROOT = Path(__file__).parents[2]


def show(*argv: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["show", *argv]) == 0
    return out.getvalue()


def code_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_whole_card(name: str) -> None:
    method = card(name, channels=256, size=14)
    text = show(name, "--size", "14")
    assert method.equation
    assert method.paper
    assert "create_attention" in text
    for option, _, _ in method.options:
        described = re.search(rf"\b{option}\b", method.about) or "others are those of" in method.about
        assert described, f"{name}: option {option} is not described"
        assert f"    {option} " in text


def test_costs_are_those_of_the_papers() -> None:
    assert (card("se").params, card("se").macs) == (2 * 256 * 16, 2 * 256 * 16)
    assert (card("eca").params, card("eca").macs) == (5, 5 * 256)
    assert card("srm").params == 4 * 256
    assert card("psa").macs == 56 * 56 * 64 * (256 * 9 + 64 * 25 + 32 * 49 + 16 * 81) + 4 * 2 * 64 * 4
    cards = json.loads(show("nl", "--channels", "8", "--size", "4", "--json"))
    assert cards["macs"] == 16 * 4 * 8 * 4 + 2 * 16 * 16 * 4
    assert "flop counter" in cards["convention"]


def test_the_table_has_one_line_per_method() -> None:
    lines = show("--table").splitlines()
    assert len(lines) == 2 + len(METHODS)
    assert [re.match(r"\| `(\w+)` \|", line).group(1) for line in lines[2:]] == list(METHODS)
    assert len({line.count("|") for line in lines}) == 1
    assert len(json.loads(show("--json"))) == len(METHODS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name a method"),
        (["se", "--table"], "not several"),
        (["ecaa"], "did you mean 'eca'"),
        (["se", "--channels", "0"], "at least 1"),
        (["sa", "--channels", "25"], "even"),
    ],
)
def test_wrong_usage(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", *argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paper", "link"),
    [
        ("Hu: Networks, CVPR 2018, arXiv:1709.01507, eq. 2", "[CVPR 2018](https://arxiv.org/abs/1709.01507)"),
        ("a variant (CVPR 2020, arXiv:1910.03151) in timm", "[CVPR 2020](https://arxiv.org/abs/1910.03151)"),
        ("B et al.: EMCA, IEEE Access 2022, code github.com/a/b, x", "[IEEE Access 2022](https://github.com/a/b)"),
        ("the plain network", ""),
    ],
)
def test_links(paper: str, link: str) -> None:
    assert source_link(paper) == link


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "methods.md").read_text() == show("--document"), (
        "run: excite show --document > docs/methods.md"
    )


def test_every_example_of_the_reference_runs() -> None:
    blocks = code_blocks(ROOT / "docs" / "methods.md")
    assert len(blocks) == 1 + len(METHODS)
    names = {"excite": excite, "torch": torch}
    for block in blocks:
        exec(block, names)
        x = torch.randn(2, 256, 6, 6)
        assert names["attention"](x).shape == x.shape


def test_the_example_of_a_new_method_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file, line = code_blocks(ROOT / "CONTRIBUTING.md")[:2]  # a method; other examples follow
    assert len([row for row in file.splitlines() if row.strip()]) <= 15
    (tmp_path / "peak.py").write_text(file)
    spec = importlib.util.spec_from_file_location("excite.methods.peak", tmp_path / "peak.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "excite.methods.peak", module)
    spec.loader.exec_module(module)
    for name, entry in eval("{" + line + "}", {"Entry": registry.Entry}).items():
        monkeypatch.setitem(registry.METHODS, name, entry)
    x = torch.randn(2, 32, 5, 5)
    attention = excite.create_attention("peak", 32, reduction=4)
    torch.testing.assert_close(attention.squeeze(x).squeeze(-1), x.amax((2, 3)))
    assert attention(x).shape == x.shape
    model = excite.create_model("peak_resnet20", num_classes=3, reduction=4)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)
    assert "w = sigmoid(W2 relu(W1 max(x)))" in show("peak")


def test_the_cards_say_what_was_compared() -> None:
    from test_golden_modules import CASES

    import goldens

    compared = {case.method: set() for case in CASES}
    for case in CASES:
        source = goldens.load(f"modules/{case.file}")["source"]
        repository = re.match(r"([\w.-]+/[\w.-]+)@|(timm) ", source)
        if repository:
            compared[case.method].add((repository.group(1) or repository.group(2)).lower())
    for name in METHODS:
        method = registry.get_method(name)
        sources = compared.get(name, set())
        assert all(source in method.equals.lower() for source in sources), f"{name}: {sources}"
        assert bool(method.equals) == bool(sources) or name == "emca_eca", f"{name} is said to equal code"
        assert method.equals or method.differs or name == "none", f"{name} says nothing of its original"
    table = show("--document").partition("## Where they agree")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.M) == [name for name in METHODS if name != "none"]
    for name in (n for n in METHODS if n.startswith("emca_")):
        assert "reconstruction" in show(name)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "none"])
def test_every_method_can_be_cited(name: str) -> None:
    entry = show(name, "--bibtex")
    assert re.match(r"@(inproceedings|article|misc)\{[a-z0-9]+,\n", entry)
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.M))
    assert len(fields["title"]) > 8
    assert "author" in fields or name == "ma"  # EMANet: code without a paper
    assert entry.count("{") == entry.count("}")
    arxiv = re.search(r"arXiv:([\d.]+\d)", registry.get_method(name).paper)
    assert fields.get("eprint") == (arxiv and arxiv.group(1))


def test_methods_of_one_paper_share_its_entry() -> None:
    entries = {show(name, "--bibtex") for name in ("eca", "se_var1", "se_gc", "ceca")}
    assert len(entries) == 1
    assert "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks" in entries.pop()
    assert show("coord", "--bibtex") == show("strip", "--bibtex")
    assert "author = {Bakr and others}" in show("emca_eca", "--bibtex")
    assert r"Squeeze \& Excitation" in show("scse", "--bibtex")
