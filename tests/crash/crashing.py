"""What the tests of this folder share: commands in forked processes, and what must be equal after a crash."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from excite.common.files import partial_files

DIED, KILLED = 77, -9  # what the process that forks them tells of commands
FEW = 5  # points in the short forms
TIMES = ("seconds", "images_per_s", "waiting", "data_seconds")  # of a summary or a row: never twice the same
SMALL = ["--limit-train", "32", "--limit-val", "20", "--batch-size", "16", "--workers", "0", "--device", "cpu"]
TRAIN = ["train", "resnet20", "--options.width", "4", "--epochs", "2", *SMALL]


class Warm:
    """Commands of ours in processes forked from a warm one."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="crash-"))
        server = Path(__file__).with_name("warm.py")
        self.process = subprocess.Popen(
            [sys.executable, str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the warm process ended"
        return json.loads(line)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def start(self, *command: str | Path, folder: Path, **request: Any) -> int:
        """Start a command in `folder`; return its process."""
        output, log = str(self.scratch / "output"), str(self.scratch / "log")
        told = {"folder": str(folder), "output": output, "log": log, **request}
        return self._ask(start=[str(word) for word in command], **told)["pid"]

    def wait(self, pid: int, seconds: float = 600) -> int | None:
        """Return its exit code, -9 where it was killed, None where it still runs."""
        return self._ask(wait=pid, seconds=seconds)["status"]

    def run(self, *command: str | Path, folder: Path, **request: Any) -> int | None:
        """Run a command to its end."""
        return self.wait(self.start(*command, folder=folder, **request))

    @staticmethod
    def kill(pid: int) -> None:
        """Kill a command, as nothing can be prepared for."""
        os.kill(pid, signal.SIGKILL)

    @property
    def output(self) -> str:
        """What the last command said."""
        return (self.scratch / "output").read_text(errors="replace")

    @property
    def operations(self) -> list[str]:
        """The file operations of the last command that was given a root."""
        return (self.scratch / "log").read_text().splitlines()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def go_on(warm: Warm, command: list[str], run: Path) -> None:
    """Finish a run that was killed, as its owner would: resume it, or start again where nothing had begun."""
    if (run / "config.yaml").is_file():
        verb = command[: command.index("train") + 1]
        assert warm.run(*verb, "--resume", run, folder=run.parent) == 0, warm.output
    else:
        assert warm.run(*command, "--out", run, folder=run.parent) == 0, warm.output


def same(a: Any, b: Any, where: str = "") -> None:
    """Assert that two contents are equal bit for bit, times apart."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            if key not in TIMES:
                same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for number, (one, two) in enumerate(zip(a, b, strict=True)):
            same(one, two, f"{where}[{number}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert a.shape == b.shape, where
        assert a.numpy().tobytes() == b.numpy().tobytes(), where
    else:
        assert repr(a) == repr(b), f"{where}: {a} and {b}"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def same_run(reference: Path, run: Path) -> None:
    """Assert that a run left what the undisturbed one did: weights, optimizer, numbers and files, and nothing else."""
    for name in ("last.ckpt", "best.ckpt"):
        whole, other = (torch.load(x / "checkpoints" / name, weights_only=True) for x in (reference, run))
        for checkpoint in (whole, other):  # Lightning counts times a loop was entered; they say nothing of the result
            checkpoint.pop("loops")
        same(whole, other, name)
    same(rows(reference / "metrics.csv"), rows(run / "metrics.csv"), "metrics.csv")
    whole, other = (json.loads((x / "summary.json").read_text()) for x in (reference, run))
    for summary in (whole, other):
        assert Path(summary.pop("run")).is_dir()
    same(whole, other, "summary.json")
    assert (run / "config.yaml").read_text() == (reference / "config.yaml").read_text()
    assert files(run) == files(reference)
    assert partial_files(run) == []


def files(run: Path) -> list[str]:
    """Return the files of a run, without the event files, of which each start of it adds one."""
    found = (os.path.relpath(Path(folder) / name, run) for folder, _, names in os.walk(run) for name in names)
    return sorted(name for name in found if not name.startswith("tensorboard"))
