"""One spelling per idea: every command, every option."""

import shlex
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from excite.cli import COMMANDS
from excite.cli.help import GROUP_OF, help_text
from excite.cli.main import load, main
from excite.cli.parsing import parse
from excite.cli.signature import Option, examples, read_options
from excite.common.options import FORMER_OPTIONS, PRECISIONS
from excite.engine.trainer import PRECISIONS as LIGHTNING
from excite.errors import UsageError
from excite.measure.bench.variants import DTYPES
from excite.runtime import DEVICES

# An idea, and how its help begins in every command.
SHARED = {
    "out": ("text", ("run directory", "the folder to write to", "the file to write", "the JSON file to write")),
    "json": ("flag", ("print JSON",)),
    "device": ("text", ("where to run; auto takes a GPU if there is one",)),
    "data": ("text", ("data spec",)),
    "split": ("text", ("which split",)),
    "seed": ("number", ("seed of",)),
    "batch_size": ("number", ("images", "batch sizes")),
    "options": ("mapping", ("options of", "further options of")),
    "attach": ("text", ("attach this attention method",)),
    "placement": ("text", ("which blocks of a stage get attention",)),
    "attach_sites": ("text", ("where to attach it",)),
    "attach_options": ("mapping", ("options of the attached method",)),
    "overwrite": ("flag", ("replace", "empty the run directory")),
    "limit": ("number", ("use that many images only", "how many", "most images")),
    "skip_unreadable": ("flag", ("go on without images that cannot be read",)),
    "num_classes": ("number", ("outputs of the classifier", "classes of a network", "classes of networks")),
    "precision": ("text", ("",)),
    "workers": ("number", ("processes that", "threads that")),
    "top": ("number", ("how many classes to show",)),
    "threshold": ("number", ("lowest score",)),
}
# Words that must not come back for these ideas.
FOREIGN = {*FORMER_OPTIONS, "output_dir", "out_dir", "gpu", "dataset", "random_seed", "bs", "as_json", "image_size"}


def commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, target in COMMANDS.items():
        if isinstance(target, dict):
            for sub, inner in target.items():
                yield f"{name} {sub}", load(inner)
        else:
            yield name, load(target)


TABLE = [(name, option) for name, function in commands() for option in read_options(function)]


def family(option: Option) -> str:
    if option.is_mapping:
        return "mapping"
    kind = option.element or option.kind
    if kind is bool:
        return "flag"
    # Where a word may stand for a number (--lr find), it is one still.
    return "number" if {int, float} & {kind, *typing.get_args(kind)} else "text"


@pytest.mark.parametrize(("command", "option"), TABLE, ids=lambda v: v if isinstance(v, str) else v.name)
def test_every_option_is_explained_and_grouped(command: str, option: Option) -> None:
    assert option.help, f"{command} {option.flag} has no help"
    assert option.positional or option.name in GROUP_OF, f"{option.flag} of {command} has no group in cli/help.py"
    assert option.name not in FOREIGN
    if option.name in SHARED and not option.positional:
        kind, starts = SHARED[option.name]
        assert family(option) == kind
        assert option.help.startswith(starts), f"{command} {option.flag}: {option.help}"


def test_one_name_has_one_kind_of_value() -> None:
    kinds: dict[str, dict[str, list[str]]] = {}
    for command, option in TABLE:
        kinds.setdefault(option.name, {}).setdefault(family(option), []).append(command)
    # A detector flips with a probability, a classifier does or does not; costs are counted for any size, images that
    # networks are trained on are square; images are files, or for a plan their number.
    mixed = {name: rows for name, rows in kinds.items() if len(rows) > 1 and name not in ("flip", "size", "images")}
    assert not mixed


def test_devices_are_the_same_three_everywhere() -> None:
    found = {command: typing.get_args(option.kind) for command, option in TABLE if option.name == "device"}
    running = {"train", "test", "predict", "bench", "explain", "robustness"}
    assert set(found) == running | {"detect train", "detect test", "detect predict"}
    assert set(found.values()) == {DEVICES}


def test_precisions_are_the_same_words_everywhere() -> None:
    found = {command: set(option.choices) for command, option in TABLE if option.name == "precision"}
    assert found.pop("export") == {*PRECISIONS, "int8"}
    assert set(found) == {"train", "bench", "detect train"}
    assert all(words == set(PRECISIONS) for words in found.values())
    assert set(DTYPES) == set(LIGHTNING) == set(PRECISIONS)


@pytest.mark.parametrize("command", ["train", "detect train", "bench resnet20", "export resnet20"])
@pytest.mark.parametrize(("word", "today"), [("32", "fp32"), ("16", "fp16"), ("bf16", "bf16")])
def test_precisions_of_earlier_versions_are_understood(command: str, word: str, today: str, tmp_path) -> None:
    name, _, positional = command.partition(" ") if not command.startswith("detect") else (command, "", "")
    function = dict(commands())[name]
    file = tmp_path / "c.yaml"
    file.write_text(f"precision: {f'[{word}]' if name == 'bench' else word}\n")
    for words in (["--precision", word], [f"--precision={word}"], ["--config", str(file)]):
        call = parse(function, f"excite {name}", [*positional.split(), *words])
        assert call is not None
        got = call["config"].precision if "config" in call else call["precision"]
        assert got == ([today] if name == "bench" else today)


@pytest.mark.parametrize(
    "words",
    [
        "train",
        "test nowhere.ckpt",
        "predict nowhere.ckpt README.md",
        "bench resnet20",
        "explain random:resnet20 --data digits",
        "robustness random:resnet20 --data digits",
        "detect train",
        "detect test nowhere.ckpt",
        "detect predict nowhere.ckpt README.md",
    ],
)
def test_a_gpu_asked_for_where_there_is_none(words: str, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "README.md").write_text("no image")
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "--device", "cuda"]) == 2
    assert "--device cuda: torch finds no GPU here; use --device cpu" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(("name", "function"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_help_has_groups_metavars_and_two_examples(name: str, function: Callable[..., Any]) -> None:
    text = help_text(function, f"excite {name}", read_options(function))
    for word in ("typing", "Literal", "<class", "None", "| str", "dict["):
        assert word not in text
    assert "  --json" in text or name in ("completion", "demo")  # a script for a shell, a page
    assert max(map(len, text.splitlines())) <= 120
    lines = examples(function)
    assert len(lines) >= 2
    for line in lines:
        assert line.startswith(f"excite {name} ") or line == f"excite {name}"
        assert line in text


def outcome(function: Callable[..., Any], argv: list[str]) -> object:
    try:
        return parse(function, "excite", argv)
    except UsageError as error:
        return str(error)


def one_of_each_kind(options: list[Option]) -> list[Option]:
    kinds = {(o.kind, o.element, o.is_mapping, bool(o.choices)): o for o in reversed(options)}
    return list(kinds.values())


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["kinds", "options"])
@pytest.mark.parametrize(("name", "function"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_words_may_follow_any_option(name: str, function: Callable[..., Any], every: bool) -> None:
    """After an option of each kind; of the slow tests, after every option."""
    options = read_options(function)
    alone = [word for o in options if o.positional for word in (["a", "b"] if o.element else ["a"])]
    further = [option for option in options if not option.positional] if alone else []
    for option in further if every else one_of_each_kind(further):
        sample = {int: "2", float: "0.5"}.get(option.element or option.kind, "x")
        words = [option.flag] if option.kind is bool else [option.flag, *map(str, option.choices[:1] or [sample])]
        if option.is_mapping:
            words[0] += ".name"
        if option.element is str:
            words.append("--")
        expected = outcome(function, [*alone, *words])
        assert outcome(function, [*words, *alone]) == expected, option.flag
        assert outcome(function, [alone[0], *words, *alone[1:]]) == expected, option.flag


@pytest.mark.parametrize(("name", "function"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_examples_parse(name: str, function: Callable[..., Any]) -> None:
    for line in examples(function):
        argv = shlex.split(line.partition(" >")[0])[1 + len(name.split()) :]  # what follows > is the shell's
        assert parse(function, f"excite {name}", argv) is not None
