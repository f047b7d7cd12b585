"""What 8 bits cost the bundled networks: accuracy on CIFAR-10's test images before and after; writes int8.json.

    python benchmarks/int8.py --data parquet:PATH      # every row that benchmarks/results/int8.json does not have yet
    python benchmarks/int8.py --data parquet:PATH --only eca_resnet20 --fresh

Calibrated with images of the training split. The change is paired: both networks see the same images, and its interval
is 1.96 standard errors of the mean of (right after - right before).
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from record import add_out, show, table, write
from torch import Tensor

from excite.cli.export import find_network
from excite.data.preprocess import Preprocess
from excite.data.specs import open_data
from excite.export import FORMATS, export_model, open_exported

NETWORKS = ("resnet20.cifar10", "se_resnet20.cifar10", "eca_resnet20.cifar10", "srm_resnet20.cifar10")
TABLE = "top-1 before and after 8 bits"
COLUMNS = {
    "network and format": "",
    "before": "{:.2f} %",
    "after": "{:.2f} %",
    "change, points": "{:+.2f} [{:+.2f}, {:+.2f}]",
    "file, fp32": "{:.2f} MB",
    "file, int8": "{:.2f} MB",
}


def right(run: Callable[[Tensor], Tensor], batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return for every image whether it is recognised."""
    with torch.inference_mode():
        return torch.cat([run(x).argmax(1) == y for x, y in batches])


def change(before: Tensor, after: Tensor) -> list[float]:
    """Return the mean change in points, with its interval."""
    points = 100 * (after.double() - before.double())
    mean, error = float(points.mean()), float(points.std()) / math.sqrt(len(points))
    return [round(x, 3) for x in (mean, mean - 1.96 * error, mean + 1.96 * error)]


def row(network: str, format: str, args: argparse.Namespace) -> list[Any]:
    """Export a network in both precisions and score it on the test images."""
    model, card, _ = find_network(network, None, None)
    bundle, preprocess = open_data(args.data, limit_train=args.calibration, limit_test=args.limit), Preprocess.of(card)
    calibration, tests = [x for x, _ in preprocess.batches(bundle.train)], list(preprocess.batches(bundle.test))
    side, before, sizes = card.preprocess["size"] if card.preprocess else 32, right(model, tests), []
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "int8"):
            path = Path(folder) / f"{precision}{FORMATS[format]}"
            options: dict[str, Any] = {"format": format, "precision": precision, "input_size": side, "dynamic": True}
            result = export_model(model, card, path, calibration=calibration, **options)
            sizes.append(round(result.megabytes, 3))
        after = right(open_exported(path), tests)
    scores = [round(100 * float(x.double().mean()), 3) for x in (before, after)]
    return [f"{network}, {format}", *scores, change(before, after), *sizes]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data spec of CIFAR-10")
    parser.add_argument("--calibration", type=int, default=512, help="training images to calibrate with")
    parser.add_argument("--limit", type=int, help="most test images")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--fresh", action="store_true", help="measure rows again that the file has")
    add_out(parser, "int8")
    args = parser.parse_args(argv)
    names = [f"{network}, {format}" for network in NETWORKS for format in ("onnx", "openvino")]
    wanted = [name for name in names if name.startswith(args.only)]
    if not wanted:
        parser.error(f"--only {args.only!r} begins none of the rows: {'; '.join(names)}")
    rows: dict[str, list[Any]] = {}
    if args.out.is_file() and not args.fresh:
        rows = {cells[0]: cells for cells in json.loads(args.out.read_text(encoding="utf-8"))["tables"][TABLE]["rows"]}
    for name in wanted:
        if name in rows:
            continue
        network, format = name.split(", ")
        rows[name] = row(network, format, args)
        interval = "1.96 standard errors of the paired change"
        images = "all test images" if args.limit is None else f"{args.limit} test images"
        notes = [f"CIFAR-10, {images}; calibrated with {args.calibration} training images"]
        ordered = [rows[n] for n in names if n in rows]
        write(args.out, {TABLE: table(COLUMNS, ordered)}, interval=interval, notes=notes)
        print(name, file=sys.stderr, flush=True)
    show({TABLE: table(COLUMNS, [rows[n] for n in names if n in rows])})


if __name__ == "__main__":
    main()
