"""What attention costs in exported networks, engine by engine, with and without the rewrites of `excite export`.

python benchmarks/engines.py --models eca_resnet50 se_resnet50 --batch 1
python benchmarks/engines.py --all     # every case of the docs: writes benchmarks/results/engines.json
python benchmarks/engines.py --nodes   # what onnxruntime makes of the networks
python benchmarks/engines.py --profile # where OpenVINO's time goes, by primitive: writes results/engine_profile.json
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import ORDER_STATISTICS, RATIO, add_out, ratio_cell, show, table, write

from excite.export.convert import to_onnx_bytes, to_openvino
from excite.export.engines import open_onnx, open_openvino
from excite.measure.bench import interleave, ratio
from excite.models import create_model

ENGINES = ("onnxruntime", "openvino", "openvino bf16")


def calls(plain: str, models: Sequence[str], batch: int, side: int) -> dict[tuple[str, str], Callable[[], object]]:
    """Return {(engine, variant): call}: the plain network, and each model folded only and fully rewritten."""
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    found: dict[tuple[str, str], Callable[[], object]] = {}
    for name in (plain, *models):
        torch.manual_seed(0)
        model = create_model(name).eval()
        for moved in (True,) if name == plain else (False, True):
            label = name if name == plain else f"{name}, {'rewritten' if moved else 'norms folded only'}"
            onnx = open_onnx(to_onnx_bytes(model, x, dynamic=False, move_squeezes=moved))[0]
            vino = to_openvino(model, x, dynamic=False, move_squeezes=moved)
            runs = (onnx, open_openvino(vino), open_openvino(vino, "bf16"))
            for engine, run in zip(ENGINES, runs, strict=True):
                found[engine, label] = lambda run=run: run(x)
    return found


def rows_of(plain: str, models: Sequence[str], batch: int, side: int, rounds: int) -> list[list[Any]]:
    """Return a row per network and engine: time of the plain network, ratios to it when folded only and rewritten."""
    made, rows = calls(plain, models, batch, side), []
    for engine in ENGINES:
        group = {label: call for (e, label), call in made.items() if e == engine}
        timings = interleave(group, rounds=rounds, min_time=0.4)  # long enough to warm the caches again
        base = timings[plain]
        for name in models:
            both = [timings[f"{name}, {how}"] for how in ("norms folded only", "rewritten")]
            ratios = [ratio_cell(ratio(timing, base)) for timing in both]
            rows.append([f"{name}, batch {batch}", engine, round(1e3 * base.median, 2), *ratios])
    return rows


def nodes(plain: str, models: Sequence[str], side: int) -> str:
    """Return a Markdown table of what onnxruntime makes of each network: how often each kind of node stands in it."""
    import onnx
    import onnxruntime

    x, counts = torch.randn(1, 3, side, side), {}
    for name in (plain, *models):
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            options.log_severity_level = 3
            model = to_onnx_bytes(create_model(name).eval(), x, dynamic=False)
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            counts[name] = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    kinds = sorted(set().union(*counts.values()))
    lines = [f"| network | {' | '.join(kinds)} |", "|---|" + "---:|" * len(kinds)]
    lines += [f"| {name} | {' | '.join(str(c[kind]) for kind in kinds)} |" for name, c in counts.items()]
    return "\n".join(lines) + "\n"


def profile(name: str, batch: int, side: int, precision: str, rounds: int) -> list[list[Any]]:
    """Return a row per kind of primitive that OpenVINO runs: how many, their time, and their share of all."""
    import openvino

    torch.manual_seed(0)
    x = torch.randn(batch, 3, side, side)
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "PERF_COUNT": True}
    hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    model = to_openvino(create_model(name).eval(), x, dynamic=False)
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    counts: Counter[str] = Counter()
    samples: dict[str, list[float]] = {}
    for number in range(rounds + 2):
        request.infer([x.numpy()], share_inputs=True)
        spent: Counter[str] = Counter()
        for part in request.profiling_info:
            kind = f"{part.node_type}, {part.exec_type}"
            spent[kind] += part.real_time.total_seconds()
            counts[kind] += number == 0 and part.real_time.total_seconds() > 0
        for kind, seconds in spent.items() if number > 1 else ():
            samples.setdefault(kind, []).append(1e3 * seconds)
    medians = {kind: median(times) for kind, times in samples.items() if counts[kind]}
    whole = sum(medians.values())
    rows = sorted(medians.items(), key=lambda pair: -pair[1])
    what = f"{name}, batch {batch} at {side}², {precision}"
    return [[f"{what}: {kind}", counts[kind], round(ms, 3), round(100 * ms / whole, 2)] for kind, ms in rows]


CASES = [
    ("resnet50", ("se", "eca", "srm", "emca_eca"), 1, 224),
    ("resnet50", ("se", "eca"), 16, 112),
    ("resnet18", ("eca",), 1, 224),
    ("mobilenet_v2", ("eca",), 1, 224),
]


def main() -> None:
    """Print one table, or print and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", default="resnet50")
    parser.add_argument("--models", nargs="+", default=["eca_resnet50", "se_resnet50"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    add_out(parser, "engines")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--nodes", action="store_true", help="count the nodes of onnxruntime's graphs, time nothing")
    parser.add_argument("--profile", action="store_true", help="OpenVINO's time by primitive, batch 16 at 112²")
    args = parser.parse_args()
    if args.profile:
        cases = [(n, p) for p in ("f32", "bf16") for n in (args.plain, *args.models)]
        found = [row for name, precision in cases for row in profile(name, 16, 112, precision, args.rounds)]
        columns = {"network and primitive": "", "number": "{}", "time": "{:.2f} ms", "share": "{:.1f} %"}
        tables = {"time by primitive": table(columns, found)}
        show(tables)
        write(args.out.with_name("engine_profile.json"), tables, notes=["medians; the engine's own counters"])
        return
    if args.nodes:
        print(nodes(args.plain, args.models, args.side))
        return
    rows: list[list[Any]] = []
    if args.all:
        for plain, methods, batch, side in CASES:
            rows += rows_of(plain, [f"{method}_{plain}" for method in methods], batch, side, args.rounds)
    else:
        rows = rows_of(args.plain, args.models, args.batch, args.side, args.rounds)
    columns = {"network": "", "engine": "", "plain": "{:.1f} ms", "folded only": RATIO, "rewritten": RATIO}
    tables = {"ratio to the plain network": table(columns, rows)}
    show(tables)
    if args.all:
        write(args.out, tables, interval=ORDER_STATISTICS, notes=["batch 1 at 224², batch 16 at 112²"])


if __name__ == "__main__":
    main()
