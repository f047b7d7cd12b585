"""What attention costs in exported networks, engine by engine, with and without the rewrites of `excite export`.

python benchmarks/engines.py --models eca_resnet50 se_resnet50 --batch 1
"""

import argparse
from collections.abc import Callable, Sequence

import torch

from excite.export.engines import open_onnx, open_openvino
from excite.export.write import to_onnx_bytes, to_openvino
from excite.measure.bench import environment, interleave, ratio
from excite.measure.bench.environment import place
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


def main() -> None:
    """Print a Markdown table of ratios to the plain network in the same engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", default="resnet50")
    parser.add_argument("--models", nargs="+", default=["eca_resnet50", "se_resnet50"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    made = calls(args.plain, args.models, args.batch, args.side)
    print(f"{place(environment())}; batch {args.batch}, {args.side}x{args.side}; ratio to {args.plain}, middle 90 %\n")
    print("| engine | network | ms | ratio |\n|---|---|---:|---:|")
    for engine in ENGINES:
        group = {label: call for (e, label), call in made.items() if e == engine}
        timings = interleave(group, rounds=args.rounds, min_time=0.05)
        for label, timing in timings.items():
            r = ratio(timing, timings[args.plain])
            print(
                f"| {engine} | {label} | {1e3 * timing.median:.1f} | {r.value:.3f} ({r.low:.3f}-{r.high:.3f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
