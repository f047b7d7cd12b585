"""The dispatcher: find the command, import it alone, parse its options, turn errors into exit codes."""

import contextlib
import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from excite.cli import COMMANDS, HELP
from excite.errors import ExciteError, UsageError, unknown
from excite.runtime import tune

# Any: commands are functions of every signature, in tables of tables.

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
NO_TUNE = "--no-tune"
TARGETS = ("out", "plot", "accuracy_plot", "csv", "svg")  # options that say what is written
# Commands whose --out is a folder; of the others it is a file.
WRITES_A_FOLDER = {
    "train",
    "test",
    "compare",
    "explain",
    "robustness",
    "shards",
    "push",
    "detect train",
    "detect test",
    "detect predict",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    if NO_TUNE in args:
        args.remove(NO_TUNE)
    elif argv is None:  # the process is ours, not a caller's
        tune()
        for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets an escape, not an error
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(args)
    except ExciteError as error:
        _complain(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        from excite.common.extras import explain

        absent = explain(error)
        if absent is None:
            raise
        _complain(str(absent))
        return absent.exit_code
    except BrokenPipeError:
        # The reader (`| head`) went away. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # of the machine: a full disk, a folder that nobody may write to
        _complain(f"{error.strerror or type(error).__name__}" + (f": {error.filename}" if error.filename else ""))
        return FAILED
    except (MemoryError, RuntimeError) as error:
        # Torch has no error of its own for a processor without memory.
        if isinstance(error, RuntimeError) and not re.search("n't allocate memory|out of memory", str(error)):
            raise
        _complain("not enough memory for this")
        return FAILED
    except KeyboardInterrupt as stop:
        _complain(f"interrupted; {stop}" if str(stop) else "interrupted")
        return INTERRUPTED


def _complain(message: str) -> None:
    from excite.common.tables import say

    with contextlib.suppress(OSError):  # a full disk under the output is what the message is about
        sys.stdout.flush()
    say(f"excite: error: {message}", file=sys.stderr)


def _dispatch(args: list[str]) -> int:
    """Walk down the table along `args`, then run what is found there."""
    table: Any = COMMANDS
    path: list[str] = []
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    while isinstance(table, dict):
        if not args or args[0] in ("-h", "--help"):
            print(overview(table, path))
            return DONE if args else USAGE
        if not path and args[0] == "--version":
            from importlib.metadata import version

            print(f"excite {version('excite')}")
            return DONE
        name = args.pop(0)
        if name not in table:
            raise _unknown_command(name, table, path)
        path.append(name)
        table = table[name]
    return _run(load(table), path, args)


def _unknown_command(name: str, table: dict[str, Any], path: list[str]) -> UsageError:
    where = " ".join(["excite", *path])
    if name.startswith("-"):
        return UsageError(
            f"{where} takes a command before its options, got {name!r}; `{where} --help` lists the commands"
        )
    if not difflib.get_close_matches(name, table, cutoff=0.55):
        return UsageError(f"unknown command {name!r}; `{where} --help` lists the commands: {', '.join(table)}")
    return unknown("command", name, table)


def load(target: str) -> Callable[..., Any]:
    """Import `module:function`; other parts of the command line may use it to reach a command."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _run(function: Callable[..., Any], path: list[str], args: list[str]) -> int:
    from excite.cli.parsing import parse

    call = parse(function, "excite " + " ".join(path), args)
    if call is None:  # --help or --print_config has been answered
        return DONE
    _check_targets(" ".join(path), call)
    try:
        with _unchanged():
            result = function(**call)
    except ExciteError as error:
        if {**vars(call.get("config", object)), **call}.get(error.option) is False:
            error.offer(f"go on with --{error.option.replace('_', '-')}")
        raise
    return result if isinstance(result, int) else DONE


def _check_targets(command: str, call: dict[str, Any]) -> None:
    """Raise where what a command is to write cannot be written: before its work, not after it."""
    from excite.common.files import check_writable

    run = call.get("config")  # of a training run, whose directory is checked again, for what is in it
    resumed = getattr(run, "resume", None)
    targets = [call.get(name) for name in TARGETS] + [getattr(run, "out", None)]
    if resumed is not None and not os.path.isfile(resumed):  # a file of another script is read, not written
        targets.append(resumed)
    for target in targets:
        if target is not None:
            check_writable(target, folder=command in WRITES_A_FOLDER and target is not call.get("plot"))


def _unchanged() -> contextlib.AbstractContextManager[None]:
    """Leave the random numbers and switches of a process that has called a command as they were."""
    if "torch" not in sys.modules:  # then there are none to be kept, and it is slow to import
        return contextlib.nullcontext()
    from excite.engine.process import unchanged

    return unchanged()


def overview(table: dict[str, Any], path: Sequence[str] = ()) -> str:
    """Return the help text of a (sub-)table of commands."""
    from excite.cli.help import entry

    prog = " ".join(["excite", *path])
    column = max(map(len, table)) + 4
    lines = [f"usage: {prog} COMMAND [options]", ""]
    if not path:
        lines += ["Channel attention for convolutional networks: train, compare, measure, explain, export.", ""]
    lines += ["commands:"]
    for name, target in table.items():
        about = HELP.get(" ".join([*path, name]), "")
        more = f" ({' | '.join(target)})" if isinstance(target, dict) else ""
        lines += entry(name, about + more, column)
    lines += ["", f"`{prog} COMMAND --help` shows a command's options."]
    if not path:
        lines += [f"`{NO_TUNE}` (anywhere) leaves allocator and threads as they are (docs/free.md)."]
        lines += ["Start with `excite train`: an ECA network learns handwritten digits in about a minute."]
    return "\n".join(lines)
