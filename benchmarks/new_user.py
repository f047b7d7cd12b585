"""How long the way of `docs/start.md` takes: a fresh clone, in a new folder, to a trained network, its channel scales,
attention in a trained network, and a comparison.

    python benchmarks/new_user.py                       # installs with uv, from its cache where that has the packages
    python benchmarks/new_user.py --only install train

Writes the seconds of every step and the processor's part of them, which other work on the machine does not lengthen;
`uv` must be there. The file is written after every step.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from record import DOCS_RESULTS, HERE, table, write

STEPS: dict[str, tuple[str, str]] = {
    "clone": ("a clone", "git clone -q {repository} excite"),
    "install": ("all that it needs (`uv sync`, packages already in uv's cache)", "uv sync -q"),
    "train": ("a trained network", "uv run excite train"),
    "explain": ("a picture of its channel scales", "uv run excite explain runs/eca_resnet20-digits"),
    "attach": (
        "attention in a trained network, fine-tuned",
        "uv run excite train resnet20 --pretrained --attach eca --attach-options.init identity "
        "--recipe finetune --data digits --size 32 --epochs 4 --out runs/attached",
    ),
    "compare": ("four methods compared, three seeds each", "uv run excite compare"),
}


def main() -> None:
    """Run the steps and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="these, behind the clone")
    parser.add_argument("--out", type=Path, default=DOCS_RESULTS / "new-user.json")
    options = parser.parse_args()
    rows = []
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as folder:
        for name, (what, command) in STEPS.items():
            if name in ("clone", *options.only):
                place = Path(folder) / ("" if name == "clone" else "excite")
                rows.append([what, _shown(command), *run(command.format(repository=HERE.parent), place, environment)])
                print(f"{rows[-1][2]:7.1f} s, of the processor {rows[-1][3]:7.1f} s  {what}", flush=True)
                columns = {"you have": "", "command": "", "time": "{:.0f} s", "processor time": "{:.0f} s"}
                write(options.out, {"steps": table(columns, rows)})


def _shown(command: str) -> str:
    return f"`{command.format(repository='REPOSITORY')}`"


def run(command: str, place: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds that a command takes, and those of the processor in it. Stops where it fails."""
    words: Sequence[str] = command.split()
    start, before = time.monotonic(), _processor()
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return round(time.monotonic() - start, 1), round(_processor() - before, 1)


def _processor() -> float:
    """Return the processor's seconds in all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
