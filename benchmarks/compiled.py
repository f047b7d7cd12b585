"""What attention costs in compiled training on a CPU, in four forms: writes benchmarks/results/compiled.json.

    python benchmarks/compiled.py                      # every row that the file does not have yet
    python benchmarks/compiled.py --fresh              # every row
    python benchmarks/compiled.py --only "resnet18"    # rows whose name begins so

Forms: the network without attention; ECA through its modules; ECA through the operators of
`excite.ops.tail.operators`; ECA in closed form, plain operations that the compiler fuses (`closed_tail`). A row is
timed in turn (A B C D, D C B A); the last columns are what a form saves, in hundredths of the plain step, with an
interval. After each row the file is written. The verdict: a form is kept where it saves two points or more in every
row, with an interval above zero.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from excite.runtime import tune

TUNED = tune()

import torch  # noqa: E402 - after the threads are set
from record import ORDER_STATISTICS, RATIO, add_out, ratio_cell, show, table, write  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from excite import ops  # noqa: E402
from excite.measure.bench.timing import Timing, interleave, median_interval, quantile, ratio  # noqa: E402
from excite.models import create_model  # noqa: E402
from excite.ops.precision import wide_type, widen  # noqa: E402
from excite.ops.tail import operators  # noqa: E402
from excite.ops.tail.kernels import Affine  # noqa: E402
from excite.ops.tail.moments import Moments, normalise  # noqa: E402

FORMS = ("modules", "operators", "closed form")
GAIN = "{:.1f} [{:.1f}, {:.1f}]"
COLUMNS = {"network, precision, layout": "", "plain": "{:.1f} ms", **dict.fromkeys(FORMS, RATIO)}
COLUMNS |= {f"{form} saves, points": GAIN for form in FORMS[1:]}
TABLE, LEAST = "compiled training step", 2.0
LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
ROWS = [
    f"{network}, {precision}, {layout}"
    for precision in ("float32", "bfloat16")
    for layout in LAYOUTS
    for network in ("resnet18", "resnet50")
]


def closed_standardise(z: Tensor, gamma: Any, beta: Any, eps: float, second: bool) -> tuple[Tensor, ...]:
    """Return what `operators.standardise` does, in plain operations; the carriers are not needed."""
    variance, mean = torch.var_mean(widen(z), tuple(range(2, z.dim())), correction=0)
    _, inverse, y = normalise(Moments(mean, variance, None), gamma, beta, None, operators.settings(z, eps, second))
    spread = variance if y.variance is None else y.variance
    assert y.mean is not None
    return mean, mean, y.scale, y.bias, y.mu, inverse, mean, variance, y.mean, spread


def closed_tail(
    z: Tensor,
    carrier: Any,
    carrier_a: Any,
    scale: Tensor,
    bias: Tensor,
    mu: Tensor,
    weights: Any,
    shortcut: Any,
    rectified: bool,
) -> Tensor:
    """Return what `operators.tail` does, in plain operations."""
    by = Affine(scale, bias, mu, weights)
    a, b = (x.reshape(*x.shape, *(1,) * (z.dim() - 2)) for x in (by.factor(z), by.offset(z)))
    out = a * z.to(wide_type(z)) + b
    out = out if shortcut is None else out + shortcut
    return (out.relu() if rectified else out).to(z.dtype)


def step(network: nn.Module, mode: str, x: Tensor, half: bool, backend: str) -> Callable[[], None]:
    """Return one compiled training step: forward, loss, backward."""
    y, run = torch.randint(0, 1000, (x.shape[0],)), torch.compile(network, backend=backend)

    def call() -> None:
        network.zero_grad()
        with ops.use(mode), torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = nn.functional.cross_entropy(run(x), y)
        loss.backward()

    return call


def build(row: str, form: str, x: Tensor, args: argparse.Namespace) -> Callable[[], None]:
    """Return the compiled step of a form; its first call compiles."""
    backbone, precision, layout = row.split(", ")
    backbone = "resnet20" if args.small else backbone
    torch.manual_seed(0)
    network = create_model(backbone if form == "plain" else f"eca_{backbone}").to(memory_format=LAYOUTS[layout])
    mode = "reference" if form in ("plain", "modules") else "fused"
    call = step(network.train(), mode, x, precision == "bfloat16", args.backend)

    def closed() -> None:
        with patch.multiple(operators, standardise=closed_standardise, tail=closed_tail):
            call()

    return closed if form == "closed form" else call


def gain(modules: Timing, form: Timing, plain: Timing) -> list[float]:
    """Return what a form saves beside the modules, in hundredths of the plain step, with the median's interval."""
    rounds = zip(modules.samples, form.samples, plain.samples, strict=True)
    points = [100 * (m - f) / p for m, f, p in rounds]
    low, high, _ = median_interval(points)
    return [round(v, 2) for v in (quantile(points, 0.5), low, high)]


def verdicts(rows: list[list[Any]]) -> dict[str, str]:
    """Return for each form whether it is kept: two points or more in every row, with an interval above zero."""
    said = {}
    for number, form in enumerate(FORMS[1:], 2 + len(FORMS)):
        gains = [row[number] for row in rows]
        keep = bool(gains) and all(value >= LEAST and low > 0 for value, low, _ in gains)
        said[f"{form}, verdict"] = f"{'keep' if keep else 'step aside'}, {len(gains)} of {len(ROWS)} rows measured"
    return said


def measured(row: str, args: argparse.Namespace) -> list[Any]:
    """Time one row."""
    torch.compiler.reset()
    x = torch.randn(args.batch, 3, args.side, args.side).contiguous(memory_format=LAYOUTS[row.split(", ")[2]])
    calls = {form: build(row, form, x, args) for form in ("plain", *FORMS)}
    timings = interleave(calls, args.rounds, warmup=2, min_time=0.0 if args.small else 0.2)
    plain, modules = timings["plain"], timings["modules"]
    ratios = [ratio_cell(ratio(timings[form], plain)) for form in FORMS]
    gains = [gain(modules, timings[form], plain) for form in FORMS[1:]]
    return [row, round(1e3 * plain.median, 3), *ratios, *gains]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 25), ("batch", 16), ("side", 112)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--fresh", action="store_true", help="time rows again that the file has")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--small", action="store_true", help="ResNet-20 in place of all networks, for a test")
    add_out(parser, "compiled")
    args = parser.parse_args(argv)
    if args.rounds < 6:
        parser.error(f"--rounds {args.rounds}: an interval of 95 % needs at least six")
    if args.threads:
        torch.set_num_threads(args.threads)
    wanted = [row for row in ROWS if row.startswith(args.only)]
    if not wanted:
        parser.error(f"--only {args.only!r} begins none of the rows: {'; '.join(ROWS)}")
    rows: dict[str, list[Any]] = {}
    if args.out.is_file() and not args.fresh:
        rows = {row[0]: row for row in json.loads(args.out.read_text(encoding="utf-8"))["tables"][TABLE]["rows"]}
    interval = f"{ORDER_STATISTICS}: {median_interval(range(args.rounds))[2]:.3f} with {args.rounds} rounds"
    began = time.monotonic()
    for row in wanted:
        if row in rows:
            continue
        load = os.getloadavg()[0]
        rows[row] = measured(row, args)
        ordered = [rows[name] for name in ROWS if name in rows]
        notes = [f"batch {args.batch} at {args.side}²; {TUNED or 'untuned'}; load before the last row {load:.1f}"]
        write(args.out, {TABLE: table(COLUMNS, ordered)}, interval=interval, notes=notes, texts=verdicts(ordered))
        print(f"{time.monotonic() - began:.0f} s: {row}", file=sys.stderr, flush=True)
    ordered = [rows[name] for name in ROWS if name in rows]
    show({TABLE: table(COLUMNS, ordered)})
    print("\n".join(f"{name}: {text}" for name, text in verdicts(ordered).items()))


if __name__ == "__main__":
    main()
