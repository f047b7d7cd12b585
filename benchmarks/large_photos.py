"""How long a training waits for 12-megapixel photos: decoded whole, at a part of their size, and from the cache.

python benchmarks/large_photos.py --photos 32 --epochs 3 --model eca_resnet18

Photos and finished runs stay in --work, so the same command goes on where one stopped; --minutes ends it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import add_out, show, table, write

from excite.common.files import replacing, write_json
from excite.data.preprocess import read_rgb

SIDES = (4000, 3000)
CLASSES = ("smooth", "rough")
SOURCES = {"files": (), "cache": ("--cache", "1")}  # where a run has its images from, and its options


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", default="eca_resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/large_photos"), help="where photos and runs stay")
    parser.add_argument("--minutes", type=float, default=20, help="the longest that this command runs")
    add_out(parser, "large_photos")
    return parser.parse_args()


class Clock:
    """Ends the command when its time is over."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Return the seconds left. Raises SystemExit where there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise SystemExit("the time of --minutes is over; the same command goes on from here")
        return left


def photos(args: argparse.Namespace) -> Path:
    """Return the folder of the photos."""
    return args.work / f"photos-{args.photos}"


def draw(folder: Path, count: int, clock: Clock) -> list[Path]:
    """Draw photos: clouds of several scales with the noise of a sensor, as JPEG of quality 90."""
    noise = np.random.default_rng(0).normal(0, 3, (SIDES[1], SIDES[0], 1)).astype(np.float32)
    files = []
    for i in range(count):
        clock.left()
        file = folder / "train" / CLASSES[i % 2] / f"{i}.jpg"
        files.append(file)
        if file.is_file():
            continue
        rng = np.random.default_rng(i)
        picture = np.roll(noise, tuple(rng.integers(0, 3000, 2)), (0, 1)).repeat(3, axis=2)
        for cells in (4, 16, 64, 256 if i % 2 else 8):
            grain = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            picture += np.asarray(grain.resize(SIDES, Image.Resampling.BICUBIC), dtype=np.float32) / 4
        with replacing(file) as partial:
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(partial, quality=90)
    return files


def decoding(files: list[Path]) -> list[list[Any]]:
    """Return the median milliseconds of decoding, whole and at least 512 pixels high."""
    rows = []
    for name, least in (("whole", None), ("at a part of its size", 512)):
        times = []
        for file in files[:12]:
            begin = time.perf_counter()
            image = read_rgb(file, least=least)
            times.append(1e3 * (time.perf_counter() - begin))
        rows.append([name, f"{image.size[0]} x {image.size[1]}", round(statistics.median(times), 2)])
    return rows


def training(args: argparse.Namespace, name: str, clock: Clock) -> list[list[Any]]:
    """Return a row per epoch of a run of its own process; one that was ended is made anew: its cache would be warm."""
    run, rows = args.work / f"run-{name}", args.work / f"{name}.json"
    setting = [args.photos, args.epochs, args.model, args.size, args.workers]
    if rows.is_file() and json.loads(rows.read_text())["setting"] == setting:
        return json.loads(rows.read_text())["rows"]
    words = ["train", args.model, "--data", str(photos(args)), "--recipe", "finetune"]
    words += ["--augment", "resized-crop", "--size", str(args.size), "--epochs", str(args.epochs), "--batch-size", "8"]
    words += ["--workers", str(args.workers), "--device", "cpu"]
    words += ["--out", str(run), "--overwrite", "--logger", "none", "--json", *SOURCES[name]]
    cache = args.work / f"cache-{name}-{time.time_ns()}"  # a new one: the first epoch fills it
    environment = {**os.environ, "EXCITE_CACHE": str(cache)}
    command = [sys.executable, "-m", "excite", *words]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=clock.left()
        )
    except subprocess.TimeoutExpired:
        clock.left()
        raise
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    columns = {column: i for i, column in enumerate(lines[0])}
    found = [
        [name, int(line[columns["epoch"]]), float(line[columns["images_per_s"]]), 100 * float(line[columns["waiting"]])]
        for line in lines[1:]
    ]
    write_json(rows, {"setting": setting, "rows": found})
    return found


def main() -> None:
    """Draw the photos, time decoding and training, print and write."""
    args = arguments()
    clock = Clock(args.minutes)
    files = draw(photos(args), args.photos, clock)
    decoded = decoding(files)
    rows = [row for name in SOURCES for row in training(args, name, clock)]
    megabytes = statistics.mean(file.stat().st_size for file in files) / 1e6
    tables = {
        "decoding": table({"decoded": "", "pixels": "", "time": "{:.1f} ms"}, decoded),
        "training": table({"from": "", "epoch": "{}", "images/s": "{:.1f}", "waiting": "{:.1f} %"}, rows),
    }
    show(tables)
    about = f"{args.photos} drawn photos of {SIDES[0]} x {SIDES[1]} pixels, {megabytes:.1f} MB each on average"
    processes = f"{args.workers} reading process{'es' * (args.workers > 1)}"
    setting = f"{args.model} at {args.size} pixels, batches of 8, {processes}, {os.cpu_count()} processors"
    write(args.out, tables, notes=[about, setting, "waiting: share of the training time, without validation"])


if __name__ == "__main__":
    main()
