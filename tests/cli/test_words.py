"""Words of a command line: order, spellings, values."""

from typing import Any, Literal

import pytest

from excite.cli.main import main
from excite.cli.parsing import parse
from excite.common.options import merge, options_of, parse_pairs, parse_value, to_pairs
from excite.errors import UsageError


def work(
    run: str,
    images: list[str],
    *,
    top: int = 5,
    batch_size: int = 8,
    size: int = 0,
    ratio: float = 0.5,
    kinds: list[Literal["a", "b"]] = [],  # noqa: B006
    sizes: list[int] = [],  # noqa: B006
    others: list[str] | None = None,
    flip: bool = False,
    memory: bool = True,
    out: str | None = None,
    options: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Work."""


def read(*argv: str) -> dict[str, Any]:
    call = parse(work, "excite work", list(argv))
    assert call is not None
    return call


@pytest.mark.parametrize(
    "argv",
    [
        ["RUN", "x", "y", "--top", "2"],
        ["RUN", "--top", "2", "x", "y"],
        ["--top", "2", "RUN", "x", "y"],
        ["--top=2", "RUN", "x", "y"],
        ["RUN", "x", "--top", "2", "y"],
        ["RUN", "x", "--flip", "--no-flip", "y", "--top", "2"],
        ["RUN", "--top", "3", "--top", "2", "x", "--", "y"],
        ["--top", "2", "--sizes", "1", "2", "RUN", "x", "y"],
        ["RUN", "--top", "2", "--kinds", "a", "b", "x", "y"],
        ["RUN", "--top", "2", "--others", "p", "q", "--", "x", "y"],
    ],
    ids=" ".join,
)
def test_options_and_words_come_in_any_order(argv: list[str]) -> None:
    call = read(*argv)
    assert (call["run"], call["images"], call["top"], call["flip"]) == ("RUN", ["x", "y"], 2, False)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--batch-size", "3"], "batch_size", 3),
        (["--batch_size", "3"], "batch_size", 3),
        (["--batch_size=3"], "batch_size", 3),
        (["--top", "-1"], "top", -1),
        (["--ratio", "-.5"], "ratio", -0.5),
        (["--ratio", "1e-3"], "ratio", 1e-3),
        (["--ratio", "2"], "ratio", 2.0),
        (["--size", "64x64"], "size", 64),
        (["--kinds", "b", "a"], "kinds", ["b", "a"]),
        (["--kinds", "b", "--kinds", "a"], "kinds", ["b", "a"]),
        (["--kinds"], "kinds", []),
        (["--sizes", "1", "2"], "sizes", [1, 2]),
        (["--sizes", "1,2"], "sizes", [1, 2]),
        (["--others", "1", "true", "a, b"], "others", ["1", "true", "a, b"]),
        (["--flip"], "flip", True),
        (["--flip", "true"], "flip", True),
        (["--flip=false"], "flip", False),
        (["--no-memory"], "memory", False),
        (["-o", "there"], "out", "there"),
        (["--out", "5"], "out", "5"),
        (["--options.kernel_size", "3,5,5,7"], "options", {"kernel_size": "3,5,5,7"}),
        (["--options.kernel-size", "3"], "options", {"kernel_size": 3}),
        (["--options.a", "1", "--options.b=none"], "options", {"a": 1, "b": None}),
        (["--options.se.a", "1", "--options.se.b", "on"], "options", {"se": {"a": 1, "b": "on"}}),
        (["--options", '{"a": [1, "yes"]}', "--options.b", "-1"], "options", {"a": [1, "yes"], "b": -1}),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) and v and isinstance(v[0], str) else None,
)
def test_values(words: list[str], name: str, value: object) -> None:
    got = read("RUN", "x", *words)[name]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "many"], "--top many: expected a whole number"),
        (["--top", "1.5"], "--top 1.5: expected a whole number"),
        (["--ratio", "half"], "--ratio half: expected a number"),
        (["--kinds", "a", "bb"], "--kinds a bb: expected a list, each one of 'a', 'b'; did you mean 'b'?"),
        (["--sizes", "x"], "--sizes x: expected a list, each a whole number"),
        (["--sizes", "1", "2.5"], "--sizes 1 2.5: expected a list, each a whole number"),
        (["--flip=maybe"], "--flip maybe: expected true or false"),
        (["--top"], "--top needs a value: N"),
        (["--top", "--flip"], "--top needs a value: N"),
        (["--options.a"], "--options.a needs a value: VALUE"),
        (["--options", "a=1"], "--options a=1: options are given by name, as --options.a 1"),
        (["--top.x", "1"], "--top.x: --top has no parts; expected --top N"),
        (["--batchsize", "3"], "unknown option --batchsize; did you mean --batch-size"),
        (["--no-top"], "unknown option --no-top"),
        (["-x"], "unknown option -x"),
        (["--accelerator", "gpu"], "--accelerator is now --device auto|cpu|cuda"),
        (["--output", "x"], "--output is now --out"),
        (["--input-size", "3"], "--input-size is now --size"),
        (["--size", "64x32"], "--size 64x32: expected one side in pixels (images are square here)"),
        (["--option", "a=1"], "--option is now --options.NAME VALUE"),
        (["--config"], "--config needs a FILE.yaml"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml: no such file"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_errors_speak_of_options_not_of_python(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read("RUN", "x", *words)
    assert message in str(caught.value)
    for word in ("typing", "Literal", "<class", "Union", "NoneType", "Parser key"):
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "needs RUN"),
        (["RUN"], "needs IMAGE"),
        (["--top", "2", "RUN"], "needs IMAGE"),
        (["RUN", "--others", "a", "x"], "needs IMAGE.*--others takes all words up to the next option or --"),
    ],
)
def test_missing_words(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(*argv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("top: many\n", "top 'many': expected a whole number"),
        ("input_size: 3\n", "'input_size' is now --size"),
        ("topp: 1\n", "unknown option 'topp'; did you mean 'top'?"),
        ("- 1\n", "not a mapping"),
        ("a: [\n", "is not YAML"),
        ("kinds: [c]\n", "kinds ['c']: expected a list, each one of 'a', 'b'"),
    ],
)
def test_errors_in_a_file_name_the_file(tmp_path, content: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        read("RUN", "x", "--config", str(file))
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_file_lies_between_defaults_and_options(tmp_path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("run: R\nimages: [x]\ntop: 7\nratio: 1e-1\nothers: ['1e-1', 'true']\noptions: {a: 1, b: {c: 2}}\n")
    call = read("--ratio", "0.2", "--options.b.d", "3", "--config", str(file))
    assert (call["top"], call["ratio"], call["batch_size"]) == (7, 0.2, 8)
    assert call["options"] == {"a": 1, "b": {"c": 2, "d": 3}}
    assert (call["run"], call["images"], call["others"]) == ("R", ["x"], ["1e-1", "true"])
    assert read("--config", str(file))["ratio"] == 0.1


def test_option_values_and_pairs() -> None:
    pairs = ["a=3,5,5,7", "b=2", "c=0.5", "d=true", "e=none", "f=text"]
    options = {"a": "3,5,5,7", "b": 2, "c": 0.5, "d": True, "e": None, "f": "text"}
    assert parse_pairs(pairs) == options
    assert to_pairs(options) == pairs
    assert parse_value("[1, 2]") == [1, 2]
    assert parse_value("[1, 2") == "[1, 2"
    for wrong in ("kernel", "=3", "a.b=3"):
        with pytest.raises(UsageError, match="NAME=VALUE"):
            parse_pairs([wrong])


def test_options_of_one_among_several() -> None:
    names = ["resnet50", "eca_resnet50", "timm/resnet50.a1"]
    options = {"stem": "cifar", "eca_resnet50": {"kernel_size": 3}, "timm/resnet50": {"a1": {"k": 1}}}
    assert options_of("resnet50", names, options) == {"stem": "cifar"}
    assert options_of("eca_resnet50", names, options) == {"stem": "cifar", "kernel_size": 3}
    assert options_of("timm/resnet50.a1", names, options) == {"stem": "cifar", "k": 1}
    both = {"kernel_size": 5, "eca_resnet50": {"kernel_size": 3}}
    assert [options_of(name, names, both) for name in names[:2]] == [{"kernel_size": 5}, {"kernel_size": 3}]
    with pytest.raises(UsageError, match="'ecanet'"):
        options_of("resnet50", names, {"ecanet": {"kernel_size": 3}})


def test_merge_goes_into_mappings() -> None:
    merged = merge({"a": {"b": 1}, "c": 1}, None, {"a": {"d": 2}, "c": {"e": 3}})
    assert merged == {"a": {"b": 1, "d": 2}, "c": {"e": 3}}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "-a", "eca_resnet50"], "excite train eca_resnet50"),
        (["train", "--arch", "eca_resnet50"], "excite train eca_resnet50"),
        (["train", "--ksize", "3557"], "--options.kernel_size 3557"),
        (["train", "-b", "256"], "--batch-size N"),
        (["train", "--wd", "1e-4"], "--weight-decay X"),
    ],
)
def test_options_of_the_authors_scripts(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert hint in capsys.readouterr().err
