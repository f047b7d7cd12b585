"""How long a training waits for 12-megapixel photos: decoded whole, at a part of their size, and from the cache.

python benchmarks/large_photos.py --photos 32 --epochs 3 --model eca_resnet18
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import add_out, show, table, write

from excite.data.preprocess import read_rgb

SIDES = (4000, 3000)
CLASSES = ("smooth", "rough")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", default="eca_resnet18")
    parser.add_argument("--workers", type=int, default=1)
    add_out(parser, "large_photos")
    return parser.parse_args()


def draw(folder: Path, count: int) -> list[Path]:
    """Draw photos: clouds of several scales with the noise of a sensor, as JPEG of quality 90."""
    files = []
    for i in range(count):
        rng = np.random.default_rng(i)
        picture = np.zeros((SIDES[1], SIDES[0], 3), dtype=np.float32)
        for cells in (4, 16, 64, 256 if i % 2 else 8):
            grain = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            picture += np.asarray(grain.resize(SIDES, Image.Resampling.BICUBIC), dtype=np.float32) / 4
        picture += rng.normal(0, 3, picture.shape).astype(np.float32)
        file = folder / "train" / CLASSES[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, quality=90)
        files.append(file)
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


def training(args: argparse.Namespace, folder: Path, name: str, *options: str) -> list[list[Any]]:
    """Return a row per epoch of a run of its own process."""
    run = folder / f"run{name}"
    words = ["train", args.model, "--data", str(folder / "photos"), "--recipe", "finetune", "--augment", "resized-crop"]
    words += ["--epochs", str(args.epochs), "--batch-size", "8", "--workers", str(args.workers), "--out", str(run)]
    environment = {**os.environ, "EXCITE_CACHE": str(folder / f"cache{name}")}
    command = [sys.executable, "-m", "excite", *words, "--device", "cpu", "--json", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    json.loads(done.stdout)
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    columns = {column: i for i, column in enumerate(lines[0])}
    return [
        [name, int(line[columns["epoch"]]), float(line[columns["images_per_s"]]), 100 * float(line[columns["waiting"]])]
        for line in lines[1:]
    ]


def main() -> None:
    """Draw the photos, time decoding and training, print and write."""
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = draw(folder / "photos", args.photos)
        decoded = decoding(files)
        rows = training(args, folder, "files") + training(args, folder, "cache", "--cache", "1")
        megabytes = statistics.mean(file.stat().st_size for file in files) / 1e6
    tables = {
        "decoding": table({"decoded": "", "pixels": "", "time": "{:.1f} ms"}, decoded),
        "training": table({"from": "", "epoch": "", "images/s": "{:.1f}", "waiting": "{:.1f} %"}, rows),
    }
    show(tables)
    about = f"{args.photos} drawn photos of {SIDES[0]} x {SIDES[1]} pixels, {megabytes:.1f} MB each on average"
    setting = f"{args.model} at 224 pixels, batches of 8, {args.workers} reading process, {os.cpu_count()} processors"
    write(args.out, tables, notes=[about, setting, "waiting: share of the training time, without validation"])


if __name__ == "__main__":
    main()
