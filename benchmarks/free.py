"""What attention costs, ours against timm's and the original formulation: writes benchmarks/results/free.json.

    python benchmarks/free.py             # everything
    python benchmarks/free.py --quick     # fewer networks, printed only
    python benchmarks/free.py --precision bf16 --out benchmarks/results/free-bf16.json   # under autocast

Timed in turn (A B C, C B A); a ratio is the median of the rounds' own ratios, with an interval that
holds it with a probability of 0.95 or more (order statistics; at least six rounds).
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from excite.runtime import tune

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true")
    made.add_argument("--no-tune", action="store_true", help="leave the allocator as it is")
    made.add_argument("--mode", default="auto", choices=("auto", "fused"), help="of the variants called fused")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--precision", choices=("fp32", "bf16"), help="bf16 is autocast; fp32 on a CPU, bf16 on a GPU")
    for name, default in (("rounds", 11), ("threads", None), ("batch", 16), ("side", 112)):
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--out", type=Path, default=HERE / "results" / "free.json")
    chosen = made.parse_args()
    chosen.precision = chosen.precision or ("bf16" if chosen.device == "cuda" else "fp32")
    if chosen.rounds < 6:
        made.error(f"--rounds {chosen.rounds}: an interval of 95 % needs at least six")
    return chosen


ARGS = arguments()
TUNED = None if ARGS.no_tune else tune()

import torch  # noqa: E402 - after the threads are set
from record import ORDER_STATISTICS, RATIO, ratio_cell, show, table, write  # noqa: E402
from torch import nn  # noqa: E402
from traffic import COUNTED, tail_calls  # noqa: E402

from excite import ops  # noqa: E402
from excite.measure.bench.memory import peak_memory  # noqa: E402
from excite.measure.bench.timing import Clock, CudaClock, interleave, median_interval, ratio  # noqa: E402
from excite.models import create_model  # noqa: E402

MODE = ARGS.mode
LAST, FIRST = torch.channels_last, torch.contiguous_format


class Naive(nn.Module):
    """The formulation of the papers' code: pool, gate, expand to the size of the map, multiply."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.gate, self.pool = attention.gate, nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.gate(self.pool(x).flatten(2))
        return x * w[:, :, None, None].expand_as(x)


def naive(name: str) -> nn.Module:
    network = create_model(name)
    for module in network.modules():
        if getattr(module, "attention", None) is not None:
            module.attention = Naive(module.attention)
    return network


def timm_model(method: str, backbone: str) -> nn.Module:
    import timm

    return timm.create_model(backbone, block_args={"attn_layer": method})


def variants(backbone: str, quick: bool) -> dict[str, tuple[Callable[[], nn.Module], str]]:
    """Return label -> (builder, mode of ops); the first divides the others."""
    made: dict[str, Any] = {"plain": (lambda: create_model(backbone), "reference")}
    made["plain, ours"] = (lambda: create_model(backbone), MODE)
    for method in ("eca",) if quick else ("se", "eca", "srm", "emca_eca"):
        name = f"{method}_{backbone}"
        made[f"{method}, ours"] = (lambda name=name: create_model(name), MODE)
        if method in ("eca", "srm"):
            made[f"{method}, unfused"] = (lambda name=name: create_model(name), "reference")
    made["eca, original"] = (lambda: naive(f"eca_{backbone}"), "reference")
    if backbone.startswith("resnet"):
        for method in ("eca",) if quick else ("eca", "se"):
            made[f"{method}, timm"] = (lambda method=method: timm_model(method, backbone), "reference")
    return made


def images(batch: int, side: int, layout: Any) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, device=ARGS.device).contiguous(memory_format=layout)


def autocast() -> torch.autocast:
    return torch.autocast(ARGS.device, torch.bfloat16, enabled=ARGS.precision == "bf16")


def stepper(network: nn.Module, mode: str, x: torch.Tensor) -> Callable[[], None]:
    """Return one training step: forward, loss, backward."""
    y = torch.randint(0, 1000, (x.shape[0],), device=x.device)

    def step() -> None:
        network.zero_grad()
        with ops.use(mode), autocast():
            loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()

    return step


def build(made: Mapping[str, Any], layout: torch.memory_format) -> dict[str, tuple[nn.Module, str]]:
    networks = {}
    for label, (builder, mode) in made.items():
        torch.manual_seed(0)
        networks[label] = (builder().to(ARGS.device, memory_format=layout).train(), mode)
    return networks


def timed(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    clock = CudaClock() if ARGS.device == "cuda" else Clock()
    timings = interleave(calls, rounds, warmup=2, min_time=0.1, clock=clock)
    return {label: (t, ratio(t, timings[next(iter(calls))])) for label, t in timings.items()}


def milliseconds(timing: Any) -> float:
    return round(1e3 * timing.median, 3)


def saved(step: Callable[[], Any], network: nn.Module) -> int:
    """Return the bytes that autograd keeps for the backward pass, weights aside, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    seen: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        store = t.untyped_storage()
        if store.data_ptr() not in own:
            seen[store.data_ptr()] = store.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _ = step()  # the graph must live while it is counted
    return sum(seen.values())


def training(backbone: str, rounds: int) -> list[list[Any]]:
    """Time a training step of every variant in both layouts, and count what it saves and its peak (NHWC)."""
    rows: dict[str, list[Any]] = {}
    base: list[float] = []
    for layout in (LAST, FIRST):
        x = images(ARGS.batch, ARGS.side, layout)
        networks = build(variants(backbone, ARGS.quick), layout)
        calls = {label: stepper(network, mode, x) for label, (network, mode) in networks.items()}
        for label, (timing, r) in timed(calls, rounds).items():
            row = rows.setdefault(label, [f"{backbone}: {label}"])
            row += [milliseconds(timing), ratio_cell(r)]
            if layout == LAST:
                network, mode = networks[label]
                with ops.use(mode), autocast():
                    kept = saved(lambda network=network, x=x: network(x), network) / 1e6
                memory = [kept, peak_memory(calls[label], network, ARGS.device) / 1e6]
                base = base or memory
                row.append([[round(m, 1), round(m / b, 4)] for m, b in zip(memory, base, strict=True)])
    return [[name, t1, r1, t2, r2, *memory] for name, t1, r1, memory, t2, r2 in rows.values()]


def inference(backbone: str, rounds: int) -> list[list[Any]]:
    x, calls = images(ARGS.batch, ARGS.side, LAST), {}
    for label, (network, mode) in build(variants(backbone, ARGS.quick), LAST).items():
        network.eval()

        def call(network: nn.Module = network, mode: str = mode) -> None:
            with torch.inference_mode(), ops.use(mode), autocast():
                network(x)

        calls[label] = call
    return [[f"{backbone}: {label}", milliseconds(t), ratio_cell(r)] for label, (t, r) in timed(calls, rounds).items()]


def compiled(backbone: str, rounds: int) -> list[list[Any]]:
    """Time compiled programs: they hold plain operations, which the compiler fuses itself."""
    x = images(ARGS.batch, ARGS.side, LAST)
    made = {k: v for k, v in variants(backbone, True).items() if k in ("plain", "eca, unfused", "eca, original")}
    calls = {k: stepper(torch.compile(n), m, x) for k, (n, m) in build(made, LAST).items()}
    return [[f"{backbone}: {label}", milliseconds(t), ratio_cell(r)] for label, (t, r) in timed(calls, rounds).items()]


def growth(rounds: int) -> list[list[Any]]:
    rows = []
    cases = [(ARGS.batch, s) for s in (64, 112, 160)] + [(b, ARGS.side) for b in (4, 32)]
    for batch, side in cases[:2] if ARGS.quick else cases:
        x = images(batch, side, LAST)
        wanted = ("plain", "eca, ours", "eca, unfused")
        made = {k: v for k, v in variants("resnet50", True).items() if k in wanted}
        found = timed({k: stepper(n, m, x) for k, (n, m) in build(made, LAST).items()}, rounds)
        ratios = [ratio_cell(found[k][1]) for k in wanted[1:]]
        rows.append([f"{batch} at {side}²", milliseconds(found["plain"][0]), *ratios])
    return rows


def passes(rounds: int) -> list[list[Any]]:
    """Time the tail alone in copies of its map, beside the counted passes."""
    shape = (ARGS.batch, 256, 28, 28) if ARGS.quick else (ARGS.batch, 256, 56, 56)
    rows = []
    for name, layout in (("NHWC", LAST), ("NCHW", FIRST)):
        found = {k: t.median for k, (t, _) in timed(tail_calls(shape, layout, ARGS.device), rounds).items()}
        for (method, mode), count in COUNTED.items():
            kind = f"{method} {mode}"
            forward, both = found[kind + " forward"] / found["copy"], found[kind + " both"] / found["copy"]
            rows.append([f"{kind}, {name}", list(count), [round(forward * 2, 2), round((both - forward) * 2, 2)]])
    return rows


def coverage(rounds: int) -> float:
    return median_interval(range(rounds))[2]


def main() -> None:
    if ARGS.threads:
        torch.set_num_threads(ARGS.threads)
    began, load, rounds = time.monotonic(), os.getloadavg()[0], ARGS.rounds
    backbones = ("resnet50",) if ARGS.quick else ("resnet50", "resnet18", "mobilenet_v2")
    networks = {"network": ""}
    step = {"NHWC step": "{:.0f} ms", "NHWC": RATIO, "NCHW step": "{:.0f} ms", "NCHW": RATIO}
    step |= {"saved": "{:.0f} MB, {:.3f}", "peak": "{:.0f} MB, {:.3f}"}
    tail = {"counted passes, forward + backward": "{:.0f} + {:.0f}"}
    tail |= {"measured, in passes (half a copy each)": "{:.1f} + {:.1f}"}
    plan: dict[str, tuple[dict[str, str], list[Callable[[], list[list[Any]]]]]] = {
        "training step": (networks | step, [lambda b=b: training(b, rounds) for b in backbones]),
        "compiled, NHWC": (
            networks | {"step": "{:.0f} ms", "ratio to plain": RATIO},
            [] if ARGS.quick else [lambda b=b: compiled(b, rounds) for b in backbones],
        ),
        "inference, NHWC": (
            networks | {"batch": "{:.0f} ms", "ratio to plain": RATIO},
            [lambda: inference("resnet18" if ARGS.quick else "resnet50", rounds)],
        ),
        "growth, resnet50, NHWC": (
            {"batch and side": "", "plain": "{:.0f} ms", "eca, ours": RATIO, "eca, unfused": RATIO},
            [lambda: growth(rounds)],
        ),
        "traffic of the tail": ({"tail": ""} | tail, [lambda: passes(rounds)]),
    }
    tables = {}
    for name, (columns, makers) in plan.items():
        tables[name] = table(columns, [row for make in makers for row in make()])
        print(f"{time.monotonic() - began:.0f} s: {name}", file=sys.stderr, flush=True)
    show(tables)
    if not ARGS.quick:
        setting = (
            f"batch {ARGS.batch} at {ARGS.side}² unless said otherwise; {TUNED or 'untuned'}; load before {load:.1f}"
        )
        kernels = f"{ARGS.precision}; ours: `excite.ops.use('{MODE}')`, {ops.kernels_on(ARGS.device)}"
        interval = f"{ORDER_STATISTICS}: {coverage(rounds):.3f} with {rounds} rounds of at least 0.1 s"
        write(ARGS.out, tables, interval=interval, notes=[setting, kernels])


if __name__ == "__main__":
    main()
