"""The calculator of `excite plan` beside what one and two processes take on this machine.

python benchmarks/scale.py --rounds 5

Measured parts: images/s of one process (training eca_resnet20 on the digits, one thread), and the seconds in which two
gloo processes add up a gradient of its size. From these an epoch of two processes is predicted; then it is measured.
"""

import argparse
import csv
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import HERE, add_out, show, table, write
from torch.multiprocessing import get_context

import excite
from excite.measure.names import builder
from excite.measure.profile import input_shape, profile_named
from excite.measure.scale import Cluster, Work, predict

OWN_BATCH = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    add_out(parser, "scale")
    return parser.parse_args()


def epoch(folder: Path, processes: int, epochs: int) -> float:
    """Return the training seconds of an epoch, without validation: the median of all but the first."""
    words = ["train", "eca_resnet20", "--data", "digits", "--devices", str(processes), "--device", "cpu"]
    words += ["--batch-size", str(OWN_BATCH * processes), "--epochs", str(epochs), "--limit-val", "16"]
    words += ["--logger", "none", "--overwrite", "--quiet", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "excite", *words], env=environment, check=True)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))[1:]
    images = 1437 // (OWN_BATCH * processes) * OWN_BATCH * processes
    return statistics.median(images / float(row["images_per_s"]) for row in rows)


def exchange(rank: int, port: int, size: int, folder: Path) -> None:
    """Add up a tensor of so many bytes, again and again; write down the seconds of the median time."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    values, seconds = torch.zeros(size // 4), []
    for _ in range(30):
        begun = time.perf_counter()
        torch.distributed.all_reduce(values)
        seconds.append(time.perf_counter() - begun)
    (folder / f"exchange.{rank}").write_text(str(statistics.median(seconds[5:])))
    torch.distributed.destroy_process_group()


def exchanged(size: int, folder: Path) -> float:
    """Return the seconds of an exchange between two processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    pair = [get_context("spawn").Process(target=exchange, args=(rank, port, size, folder)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    return max(float((folder / f"exchange.{rank}").read_text()) for rank in range(2))


def checkpoint_bytes() -> int:
    """Return what `excite plan` says of a checkpoint: weights and statistics, and a momentum for each weight."""
    profile = profile_named("eca_resnet20", builder("eca_resnet20", {}, 10, 3), input_shape(16), ("macs",))
    return profile.weight_bytes + profile.buffer_bytes + 4 * profile.trainable


def decoding() -> float:
    """Return the images/s that a core decodes and augments, as `input_pipeline.py` measured."""
    measured = json.loads((HERE / "results" / "input_pipeline.json").read_text())
    return next(row[1][0] for row in measured["tables"]["pipelines"]["rows"] if row[0] == "excite")


def clusters(decode: float) -> dict[str, Any]:
    """Return what `excite plan` predicts of many GPUs, with the decoding that was measured."""
    words = [sys.executable, "-m", "excite", "plan", "--model", "eca_resnet50", "--gpus", "8", "64", "512", "--json"]
    done = subprocess.run([*words, "--decode-rate", str(decode)], capture_output=True, text=True, check=True)
    plan = json.loads(done.stdout)
    columns = {
        "GPUs": "{:,}",
        "batch": "{:,}",
        "step": "{:.1f} ms",
        "exchange": "{:.1f} ms",
        "sent by each": "{:.0f} MB",
    }
    columns |= {"decoding": "{:.1f} ms", "epoch": "{:.1f} s", "waits for": ""}
    rows = [
        [
            row["gpus"], row["batch"], round(1e3 * row["step"], 3), round(1e3 * row["exchange"], 3),
            round(row["volume"] / 1e6, 2), round(1e3 * row["decode"], 3), round(row["epoch"], 3), row["bottleneck"],
        ]
        for row in plan["predictions"]
    ]  # fmt: skip
    return table(columns, rows)


def main() -> None:
    args = arguments()
    size = 4 * sum(p.numel() for p in excite.create_model("eca_resnet20", num_classes=10).parameters())
    alone, together = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = exchanged(size, folder)
        for turn in range(args.rounds):
            for processes in (1, 2) if turn % 2 == 0 else (2, 1):
                (alone if processes == 1 else together).append(
                    epoch(folder / f"run{processes}", processes, args.epochs)
                )
        written = (folder / "run1/checkpoints/last.ckpt").stat().st_size
    images = 1437 // OWN_BATCH * OWN_BATCH
    step = images / statistics.median(alone)
    work = Work(macs=0, weights=size, state=0, images=1437, per_gpu=OWN_BATCH)
    cluster = Cluster(step=step, decode=1e9, gpus=2, inside=size / seconds, storage=1e12)
    rows = []
    for processes, measured in ((1, alone), (2, together)):
        told = predict(work, cluster, processes).epoch
        middle, low, high = statistics.median(measured), min(measured), max(measured)
        cell = [round(v, 3) for v in (middle, low, high)]
        rows.append([str(processes), round(told, 3), cell, round(middle / told, 3)])
    columns = {"processes": "", "epoch, predicted": "{:.2f} s", "epoch, measured": "{:.2f} s [{:.2f}, {:.2f}]"}
    decode = decoding()
    parts = [
        ["a step of 32 images, one thread", f"{1e3 * OWN_BATCH / step:.1f} ms: {step:.0f} images/s", "metrics.csv"],
        [f"adding up {size / 1e6:.2f} MB, two processes", f"{1e3 * seconds:.2f} ms", "all_reduce of gloo, median"],
        ["a checkpoint", f"{written / 1e6:.2f} MB; calculated {checkpoint_bytes() / 1e6:.2f} MB", "last.ckpt"],
        ["decoding, 224 pixels", f"{decode:.0f} images/s and core", "input_pipeline.json"],
    ]
    tables = {
        "processes": table({**columns, "measured / predicted": "{:.2f}"}, rows),
        "parts": table({"part": "", "measured": "", "from": ""}, parts),
        "clusters": clusters(decode),
    }
    show(tables)
    setting = f"eca_resnet20 on the digits, {OWN_BATCH} images per step and process, one thread each"
    write(args.out, tables, notes=[setting, f"median of {args.rounds} runs, in brackets least and most"])


if __name__ == "__main__":
    main()
