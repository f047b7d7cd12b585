"""The calculator of `excite plan` beside what one and two processes take on this machine.

python benchmarks/scale.py --rounds 5

Measured parts: images/s of one process (training eca_resnet20 on the digits, one thread), and the seconds in which two
gloo processes add up a gradient of its size. From these an epoch of two processes is predicted; then it is measured.
"""

import argparse
import csv
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from record import add_out, show, table, write
from torch.multiprocessing import get_context

import excite
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


def main() -> None:
    args = arguments()
    size = 4 * sum(p.numel() for p in excite.create_model("eca_resnet20").parameters())
    alone, together = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = exchanged(size, folder)
        for turn in range(args.rounds):
            for processes in (1, 2) if turn % 2 == 0 else (2, 1):
                (alone if processes == 1 else together).append(
                    epoch(folder / f"run{processes}", processes, args.epochs)
                )
    images = 1437 // OWN_BATCH * OWN_BATCH
    work = Work(macs=0, weights=size, state=0, images=images, per_gpu=OWN_BATCH)
    cluster = Cluster(step=images / statistics.median(alone), decode=1e9, gpus=2, inside=size / seconds, storage=1e12)
    rows = []
    for processes, measured in ((1, alone), (2, together)):
        told = predict(replace(work, images=1437), cluster, processes)
        low, high = min(measured), max(measured)
        rows.append(
            [str(processes), round(told.epoch, 3), [round(v, 3) for v in (statistics.median(measured), low, high)]]
        )
    columns = {"processes": "", "epoch, predicted": "{:.2f} s", "epoch, measured": "{:.2f} s [{:.2f}, {:.2f}]"}
    tables = {"processes": table(columns, rows)}
    show(tables)
    parts = (
        f"one process trains {cluster.step:.0f} images/s; {size / 1e6:.2f} MB are added up in {1e3 * seconds:.1f} ms"
    )
    setting = f"eca_resnet20 on the digits, {OWN_BATCH} images per step and process, one thread each"
    write(args.out, tables, notes=[setting, parts, f"median of {args.rounds} runs, in brackets least and most"])


if __name__ == "__main__":
    main()
