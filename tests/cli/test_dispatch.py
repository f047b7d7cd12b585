import subprocess
import sys
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import pytest

from excite.cli import COMMANDS, HELP
from excite.cli import main as cli_main
from excite.cli.parsing import parse
from excite.cli.signature import argument_help
from excite.errors import ExciteError, UsageError

SEEN: dict[str, Any] = {}


@dataclass(kw_only=True)
class Common:
    """What is common.

    Args:
        lr: learning rate.
    """

    lr: float = 0.1


@dataclass
class Settings(Common):
    """Settings.

    Args:
        model: the network.
    """

    model: str = "small"
    _: KW_ONLY
    options: dict[str, Any] = field(default_factory=dict)


def work(count: int, kind: Literal["a", "b"] = "a", *, limit_train: int | None = None, json: bool = False) -> None:
    """Do some work.

    More about it.

    Args:
        count: how often,
            in full.
        limit_train: at most 100% of these.
    """
    SEEN.update(count=count, kind=kind, limit_train=limit_train, json=json)


def fit(config: Settings, *, images: list[str] | None = None) -> int:
    """Fit."""
    SEEN.update(config=config, images=images)
    return 0


def fit_defaults(given: dict[str, Any]) -> dict[str, Any]:
    return {"lr": 0.5}


def fail() -> None:
    raise ExciteError("the disk is full")


def stop() -> None:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def table(monkeypatch):
    SEEN.clear()
    here = __name__
    commands = {n: f"{here}:{n}" for n in ("work", "fit", "fail", "stop")} | {"group": {"work": f"{here}:work"}}
    monkeypatch.setattr(cli_main, "COMMANDS", commands)
    monkeypatch.setitem(sys.modules, here, sys.modules[__name__])


def run(*argv: str) -> int:
    return cli_main.main(argv)


def test_options_positionals_and_flags():
    assert run("work", "3", "b", "--limit-train", "7", "--json") == 0
    assert SEEN == {"count": 3, "kind": "b", "limit_train": 7, "json": True}
    assert run("work", "1", "--limit_train=2", "--no-json") == 0
    assert SEEN == {"count": 1, "kind": "a", "limit_train": 2, "json": False}


def test_subcommand():
    assert run("group", "work", "4") == 0
    assert SEEN["count"] == 4


def test_dataclass_fields_are_flat_options_and_defaults_hook_is_used():
    assert run("fit", "big", "--options.kernel_size", "3,5,5,7", "--images", "x", "y") == 0
    assert SEEN["config"] == Settings("big", lr=0.5, options={"kernel_size": "3,5,5,7"})
    assert SEEN["images"] == ["x", "y"]
    run("fit")
    assert SEEN["config"] == Settings("small", lr=0.5)
    assert SEEN["images"] is None


def test_config_file_and_print_config(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("model: wide\nlr: 0.25\n")
    assert run("fit", "--config", str(file)) == 0
    assert SEEN["config"] == Settings("wide", lr=0.25)
    assert run("fit", "--config", str(file), "--lr", "1") == 0
    assert SEEN["config"].lr == 1.0
    assert run("fit", "--config", str(file), "--images", "x", "--options.k", "1") == 0
    assert SEEN["config"] == Settings("wide", lr=0.25, options={"k": 1})
    assert run("fit", "--config", str(file), "deep") == 0
    assert SEEN["config"].model == "deep"
    SEEN.clear()
    assert run("fit", "--lr", "2", "--print_config") == 0
    printed = capsys.readouterr().out
    assert "lr: 2.0" in printed
    assert "model: small" in printed
    assert not SEEN
    file.write_text(printed)
    assert run("fit", "--config", str(file)) == 0
    assert SEEN["config"].lr == 2.0
    assert run("work", "3", "--print_config") == 0
    file.write_text(capsys.readouterr().out)
    SEEN.clear()
    assert run("work", "--config", str(file), "--json") == 0
    assert SEEN == {"count": 3, "kind": "a", "limit_train": None, "json": True}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["wrk"], ["unknown command 'wrk'", "'work'"]),
        (["zzzz"], ["unknown command 'zzzz'", "work, fit"]),
        (["group", "wok"], ["unknown command 'wok'", "'work'"]),
        (["--jsn"], ["--jsn", "--help"]),
        (["work", "3", "--jsn"], ["--jsn", "--json"]),
        (["work", "3", "--limit-train", "many"], ["limit-train", "many"]),
        (["work"], ["COUNT"]),
        (["work", "3", "c"], ["'a', 'b'"]),
        (["fit", "--lr", "fast"], ["lr", "fast"]),
        (["fit", "--rl", "1"], ["--rl", "--lr"]),
        (["fit", "--config", "/nowhere/c.yaml"], ["/nowhere/c.yaml"]),
    ],
)
def test_wrong_usage_exits_2_with_one_message(argv, words, capsys):
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("excite: error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not SEEN


def test_unknown_key_in_config_file(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("lrr: 1\n")
    assert run("fit", "--config", str(tmp_path / "c.yaml")) == 2
    assert "lrr" in capsys.readouterr().err


def test_failure_and_interrupt(capsys):
    assert run("fail") == 1
    assert capsys.readouterr().err == "excite: error: the disk is full\n"
    assert run("stop") == 130
    assert capsys.readouterr().err == "excite: error: interrupted\n"


def test_help_and_version(capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert "work" in out
    assert "group" in out
    assert run() == 2
    assert run("group", "--help") == 0
    assert run("work", "--help") == 0
    out = capsys.readouterr().out
    assert "at most 100% of these" in out
    assert "how often, in full" in out
    assert "--limit-train" in out
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("excite ")


def test_help_of_inherited_fields_is_that_of_the_base(capsys):
    assert run("fit", "--help") == 0
    out = capsys.readouterr().out
    assert "--lr X" in out
    assert "learning rate (default: 0.1)" in out


def test_argument_help_reads_google_style():
    assert argument_help(work.__doc__)["count"] == "how often, in full."


def test_parse_returns_none_for_help(capsys):
    assert parse(work, "excite work", ["--help"]) is None


def test_every_command_has_a_line_of_help_and_a_target():
    paths = []
    for name, target in COMMANDS.items():
        paths += [f"{name} {sub}" for sub in target] if isinstance(target, dict) else [name]
        assert name in HELP, name
    for path in paths:
        assert HELP[path], path


#: What makes a command slow to start: packages whose import alone takes a tenth of a second or more.
HEAVY = {"torch", "torchvision", "lightning", "timm", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "PIL", "ray"}


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "models", "eca_*"],
        ["list", "--json"],
        ["train", "--help"],
        ["help", "detect", "train"],
    ],
)
def test_light_commands_import_nothing_heavy(argv):
    """What the speed of `--help` and `list` rests on; seconds would only measure how busy the machine is."""
    code = (
        f"import sys; from excite.cli.main import main; code = main({argv!r});"
        "print(code, *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code, *packages = done.stderr.splitlines()[-1].split()
    assert code == "0"
    assert not HEAVY.intersection(packages)


def test_error_classes_carry_exit_codes():
    assert ExciteError("x").exit_code == 1
    assert UsageError("x").exit_code == 2
    assert cli_main.FAILED == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 1),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294 bytes"),
            1,
        ),
        (RuntimeError("CUDA out of memory."), 1),
        (RuntimeError("a bug"), None),
    ],
)
def test_no_memory_is_one_line_and_a_bug_is_not(error, code, monkeypatch, capsys) -> None:
    def fail(args: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli_main, "_dispatch", fail)
    if code is None:
        with pytest.raises(RuntimeError, match="a bug"):
            cli_main.main(["list"])
        return
    assert cli_main.main(["list"]) == code
    assert capsys.readouterr().err == "excite: error: not enough memory for this\n"
