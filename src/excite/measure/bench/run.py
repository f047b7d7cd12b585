"""The bench: which variants, which tasks, in which order; one result per variant, task and batch size."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from excite.errors import ExciteError, UsageError, unknown
from excite.measure.bench.environment import environment, in_words
from excite.measure.bench.memory import peak_memory
from excite.measure.bench.timing import Clock, CudaClock, Timing, interleave, ratio
from excite.measure.bench.variants import TASKS, Variant, exported, inference, is_exported, training
from excite.measure.profile import build_named
from excite.runtime import pick_device

# Any: texts, numbers and lists by name.

Builder = Callable[[], nn.Module]


@dataclass(frozen=True)
class Result:
    """One measured number. seconds: median per call; rate: images per second; ratio_*: time over the first variant's
    time, in the same rounds: median, middle 90 % of the rounds, interval of the median from order statistics, which
    holds it with probability `ratio_coverage` (0.95 or more from six rounds on).
    """

    label: str
    model: str
    mode: str
    precision: str
    engine: str
    task: str
    batch_size: int
    seconds: float
    quartile_low: float
    quartile_high: float
    rate: float
    ratio: float
    ratio_low: float
    ratio_high: float
    ratio_ci_low: float
    ratio_ci_high: float
    ratio_coverage: float
    rounds: int
    calls: int
    peak_bytes: int | None
    samples: list[float] = field(default_factory=list)


@dataclass
class Report:
    """All results with the environment and the settings; `records` is what `excite tables` joins."""

    environment: dict[str, Any]
    settings: dict[str, Any]
    results: list[Result] = field(default_factory=list)

    def to_dict(self, options: dict[str, str] | None = None) -> dict[str, object]:
        """Return plain containers. options: by model name, the options it was built with."""
        records = [self._record(r, (options or {}).get(r.model, "")) for r in self.results if self._is_record(r)]
        return {
            "environment": self.environment,
            "settings": self.settings,
            "results": [asdict(r) for r in self.results],
            "records": records,
        }

    def _is_record(self, result: Result) -> bool:
        plain = result.engine == "torch" and result.mode == "eager" and result.precision == "fp32"
        return plain and result.task == "latency" and self.settings["input_shape"][1:] == [3, 224, 224]

    def _record(self, result: Result, options: str) -> dict[str, object]:
        return {
            "model": result.model,
            "options": options,
            "dataset": "speed",
            "column": "FPS",
            "value": result.rate,
            "unit": "img/s",
            "spread": result.rate * (result.quartile_high - result.quartile_low) / (2 * result.seconds),
            "n": result.rounds,
            "where": f"{in_words(self.environment)}, batch 1, fp32",
            "date": self.environment["date"],
        }


def check_tasks(tasks: Sequence[str], batch_sizes: Sequence[int]) -> None:
    """Raise UsageError for an unknown task or an impossible batch size."""
    if not tasks:
        raise UsageError(f"name at least one task: {', '.join(TASKS)}")
    for task in tasks:
        if task not in TASKS:
            raise unknown("task", task, TASKS)
    if any(b < 1 for b in batch_sizes):
        raise UsageError(f"batch sizes must be at least 1, got {list(batch_sizes)}")
    if not batch_sizes and set(tasks) - {"latency"}:
        raise UsageError("throughput and training need at least one batch size")


def bench(
    variants: Sequence[Variant],
    builders: dict[str, Builder],
    *,
    input_shape: Sequence[int] = (3, 224, 224),
    tasks: Sequence[str] = ("latency",),
    batch_sizes: Sequence[int] = (8,),
    device: str = "cpu",
    rounds: int = 15,
    warmup: int = 3,
    min_time: float = 0.2,
    memory: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Measure all variants in turn for each task and batch size.

    builders: by model name; input_shape: `(c, *space)`; tasks: "latency" (batch 1), "throughput" and "training" (each
    of `batch_sizes`); the first variant is what ratios refer to; progress: called with (what, rounds done, rounds).
    Raises UsageError for impossible settings, ExciteError (with the model's name) where a network fails.
    """
    device = pick_device(device)
    check_tasks(tasks, batch_sizes)
    settings = {
        "input_shape": [1, *input_shape],
        "tasks": list(tasks),
        "batch_sizes": list(batch_sizes),
        "rounds": rounds,
        "warmup": warmup,
        "min_time": min_time,
        "order": "in turn, forwards and backwards",
    }
    report = Report(environment(device), settings)
    for task in tasks:
        for batch in (1,) if task == "latency" else batch_sizes:
            calls, memories = _prepare(variants, builders, task, (batch, *input_shape), device, memory)
            step = None if progress is None else _named(progress, f"{task}, batch {batch}")
            clock = CudaClock() if device == "cuda" else Clock()
            timings = interleave(calls, rounds, warmup=warmup, min_time=min_time, clock=clock, progress=step)
            report.results += _results(variants, timings, task, batch, memories)
            calls.clear()
            gc.collect()
    return report


def _named(progress: Callable[[str, int, int], None], what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)


def _prepare(
    variants: Sequence[Variant],
    builders: dict[str, Builder],
    task: str,
    shape: tuple[int, ...],
    device: str,
    memory: bool,
) -> tuple[dict[str, Callable[[], object]], dict[str, int | None]]:
    """Build every variant's call and, where that can be known, its peak memory."""
    calls: dict[str, Callable[[], object]] = {}
    memories: dict[str, int | None] = {}
    for variant in variants:
        if is_exported(variant.model):
            calls[variant.label], memories[variant.label] = exported(variant.model, task, shape, device), None
            continue
        torch.manual_seed(0)
        network = build_named(builders[variant.model], variant.model)
        make = training if task == "training" else inference
        try:
            call = make(variant, network, shape, device)
            call()
            seen = variant.engine == "torch" and (device == "cuda" or not variant.mode.startswith("compiled"))
            memories[variant.label] = peak_memory(call, network, device) if memory and seen else None
        except ExciteError:
            raise
        except Exception as error:
            raise ExciteError(_failure(variant, network, shape, task, error)) from error
        calls[variant.label] = call
    return calls, memories


def _failure(variant: Variant, network: nn.Module, shape: tuple[int, ...], task: str, error: Exception) -> str:
    """Name the layer where that can be found out (a run on the meta device fails in the same place)."""
    from excite.inspect.trace import trace_model

    try:
        trace_model(network, (1, *shape[1:]))
    except ExciteError as located:
        return f"{variant.label}: {located}"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{variant.label}: {task} with input {tuple(shape)} failed: {type(error).__name__}: {first}"


def _results(
    variants: Sequence[Variant],
    timings: dict[str, Timing],
    task: str,
    batch: int,
    memories: dict[str, int | None],
) -> list[Result]:
    reference = timings[variants[0].label]
    results = []
    for variant in variants:
        timing = timings[variant.label]
        r = ratio(timing, reference)
        low, high = timing.quartiles
        results.append(
            Result(
                variant.label,
                variant.model,
                variant.mode,
                variant.precision,
                variant.engine,
                task,
                batch,
                timing.median,
                low,
                high,
                batch / timing.median,
                r.value,
                r.low,
                r.high,
                r.ci_low,
                r.ci_high,
                r.coverage,
                len(timing.samples),
                timing.calls,
                memories[variant.label],
                timing.samples,
            )
        )
    return results
