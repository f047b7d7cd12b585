"""Run the commands whose output the docs show and keep what they print: docs/results/transcript-NAME.json.

    python benchmarks/transcripts.py                            # those that need nothing but excite
    python benchmarks/transcripts.py --data FOLDER              # also those on CIFAR-10 (FOLDER/cifar10, parquet)
    python benchmarks/transcripts.py --only first-run profile

Each runs in an empty folder of its own, so that no path of the machine gets into the output; pictures that the docs
show are copied to docs/img.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record import HERE, write

# Any: a run's summary, as JSON holds it.

DOCS = HERE.parent / "docs"
CIFAR = "parquet:data/cifar10"


@dataclass(frozen=True)
class Transcript:
    """Commands, and what of them is kept.

    texts: name -> (number of the command, pattern of the lines that are kept, "" for all; "..." stands for the others).
    values: name -> (summary.json of a run, what of it as text).
    pictures: file of the folder -> file of docs/img. needs_data: whether it reads data/cifar10.
    """

    commands: list[str]
    texts: dict[str, tuple[int, str]] = field(default_factory=dict)
    values: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    needs_data: bool = False


def percent(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda summary: f"{100 * summary[key]:.2f}"


def seconds(summary: dict[str, Any]) -> str:
    return f"{summary['seconds']:.1f}"


def speed(summary: dict[str, Any]) -> str:
    return f"{summary['images_per_s']:,.0f}"


def waiting(summary: dict[str, Any]) -> str:
    return f"{100 * summary['waiting']:.1f}"


ON_CIFAR = (
    f"--data {CIFAR} --recipe emanet-cifar10 --batch-size 50 --lr 0.05 --limit-train 2000 --limit-val 1000"
    " --epochs 3 --seed 1"
)

TRANSCRIPTS = {
    "first-run": Transcript(
        ["excite train --epochs 4 --out runs/first", "excite test runs/first"],
        texts={"train": (0, "^epoch"), "test": (1, r"^class|^[01]\s|^top-1|^confusion")},
        pictures={"runs/first/confusion.png": "confusion_digits.png"},
    ),
    "default-run": Transcript(
        ["excite train --out runs/default"],
        values={
            "top-1": ("runs/default/summary.json", percent("top1")),
            "seconds": ("runs/default/summary.json", seconds),
            "images/s": ("runs/default/summary.json", speed),
        },
        pictures={"runs/default/curves.png": "training_curves.png"},
    ),
    "profile": Transcript(
        [
            "excite profile eca_resnet50 --options.kernel_size 3,5,5,7",
            "excite profile resnet50 se_resnet50 timm/seresnet50 --depth 0 --convention macs fvcore thop",
        ],
        texts={"one": (0, ""), "three": (1, "")},
    ),
    "export": Transcript(
        [
            "excite train --out runs/digits",
            "excite export runs/digits --format onnx --dynamic --data digits --out eca_digits.onnx",
        ],
        texts={"digits": (1, "")},
    ),
    "attached-cifar10": Transcript(
        [
            f"excite train timm/resnet10t {ON_CIFAR} --out runs/plain",
            f"excite train timm/resnet10t --attach eca {ON_CIFAR} --out runs/eca",
        ],
        texts={
            "plain": (0, "^epoch|^model |^MACs |^top-1"),
            "eca": (1, "^eca attached|^  layer|^parameters|^MACs |^kept|^epoch|^model |^top-1"),
        },
        values={
            "plain": ("runs/plain/summary.json", percent("top1")),
            "eca": ("runs/eca/summary.json", percent("top1")),
        },
        needs_data=True,
    ),
    "cifar10": Transcript(
        [
            f"excite train eca_resnet20 --data {CIFAR} --limit-train 1800 --limit-val 400 --epochs 2 --out runs/part",
            f"excite train eca_resnet20 --data {CIFAR} --epochs 2 --out runs/all",
        ],
        values={
            "wait": ("runs/part/summary.json", waiting),
            "all seconds": ("runs/all/summary.json", seconds),
            "all images/s": ("runs/all/summary.json", speed),
            "all wait": ("runs/all/summary.json", waiting),
            "all top-1": ("runs/all/summary.json", percent("top1")),
        },
        needs_data=True,
    ),
}


def run(command: str, folder: Path) -> str:
    """Return what a command prints, stdout and stderr as they come; COLUMNS is wide enough for every table."""
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}")
    return done.stdout


def kept(output: str, pattern: str) -> str:
    """Return the lines that a pattern finds, with "..." for each run of others between them."""
    if not pattern:
        return output.strip("\n")
    lines: list[str] = []
    for line in output.splitlines():
        if re.search(pattern, line):
            lines.append(line.rstrip())
        elif lines and lines[-1] != "...":
            lines.append("...")
    return "\n".join(lines).removesuffix("\n...")


def record(name: str, transcript: Transcript, data: Path | None) -> None:
    """Run one and write its file and pictures."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if transcript.needs_data:
            assert data is not None
            (folder / "data").symlink_to(data.resolve())
        started = time.monotonic()
        outputs = [run(command, folder) for command in transcript.commands]
        print(f"{name}: {time.monotonic() - started:.0f} s")
        texts = {
            key: f"$ {transcript.commands[number]}\n{kept(outputs[number], pattern)}\n"
            for key, (number, pattern) in transcript.texts.items()
        }
        values = {key: read(json.loads((folder / file).read_text())) for key, (file, read) in transcript.values.items()}
        for file, picture in transcript.pictures.items():
            shutil.copyfile(folder / file, DOCS / "img" / picture)
        write(
            DOCS / "results" / f"transcript-{name}.json",
            {},
            command=f"python benchmarks/transcripts.py --only {name}" + " --data data" * transcript.needs_data,
            texts=texts,
            values=values,
        )


def main() -> None:
    """Record those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TRANSCRIPTS, default=list(TRANSCRIPTS), help="these alone")
    parser.add_argument("--data", type=Path, help="the folder that holds cifar10, as parquet files")
    options = parser.parse_args()
    for name in options.only:
        if TRANSCRIPTS[name].needs_data and options.data is None:
            print(f"{name}: left out; it needs --data FOLDER")
            continue
        record(name, TRANSCRIPTS[name], options.data)


if __name__ == "__main__":
    main()
