"""What each method costs: counted once, and timed against the baseline in one interleaved session."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn

from excite.common.files import write_json
from excite.comparison.plan import Plan
from excite.measure.bench import environment, interleave, ratio
from excite.measure.bench.memory import peak_memory
from excite.measure.profile import profile_model
from excite.runtime import pick_device
from excite.train.network import spec_from

FILE = "cost.json"


class Cost(TypedDict):
    """A method's cost for images of `size` pixels.

    latency_ms: one image; throughput: images/s at `batch` images; each with its ratio to the baseline and the middle
    90 % of the rounds' ratios; training_memory: peak bytes of one training step at `batch` images.
    """

    parameters: int
    attention_parameters: int
    macs: int
    size: int
    batch: int
    latency_ms: float
    latency_ratio: float
    latency_spread: tuple[float, float]
    throughput: float
    throughput_ratio: float
    throughput_spread: tuple[float, float]
    training_memory: int


class Costs(TypedDict):
    """The costs by method, and the machine that they were measured on."""

    costs: dict[str, Cost]
    environment: dict[str, object]


def networks(plan: Plan, num_classes: int) -> dict[str, nn.Module]:
    """Return a freshly built network per method."""
    configs = {method: plan.config(method, 0, Path("unused")) for method in plan.methods}
    return {method: spec_from(config, num_classes).build() for method, config in configs.items()}


def measure(
    plan: Plan, num_classes: int, size: int, *, batch: int = 64, rounds: int = 15, min_time: float = 0.05
) -> Costs:
    """Return `{"costs": {method: Cost}, "environment": ...}` as plain containers."""
    nets = networks(plan, num_classes)
    device = pick_device("auto")
    profiles = {m: profile_model(n, size) for m, n in nets.items()}
    memory = {m: peak_memory(training_step(n, size, batch, num_classes, device), n, device) for m, n in nets.items()}
    for network in nets.values():
        network.to(device).eval()
    clock = None
    if device == "cuda":
        from excite.measure.bench.timing import CudaClock

        clock = CudaClock()
    one = interleave(
        {m: inference(n, size, 1, device) for m, n in nets.items()}, rounds, min_time=min_time, clock=clock
    )
    many = interleave(
        {m: inference(n, size, batch, device) for m, n in nets.items()}, rounds, min_time=min_time, clock=clock
    )
    first = plan.methods[0]
    costs = {}
    for method in plan.methods:
        latency, bulk = ratio(one[method], one[first]), ratio(many[method], many[first])
        costs[method] = Cost(
            parameters=profiles[method].params,
            attention_parameters=profiles[method].attention_params,
            macs=profiles[method].macs["macs"],
            size=size,
            batch=batch,
            latency_ms=1e3 * one[method].median,
            latency_ratio=latency.value,
            latency_spread=(latency.low, latency.high),
            throughput=batch / many[method].median,
            throughput_ratio=1 / bulk.value,
            throughput_spread=(1 / bulk.high, 1 / bulk.low),
            training_memory=memory[method],
        )
    return {"costs": costs, "environment": environment(device)}


def inference(network: nn.Module, size: int, batch: int, device: str) -> Callable[[], object]:
    """Return a call that runs `batch` images through a network in eval mode."""
    images = torch.randn(batch, 3, size, size, device=device)

    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def training_step(network: nn.Module, size: int, batch: int, classes: int, device: str) -> Callable[[], object]:
    """Return a call that runs forward and backward over `batch` images."""
    network.to(device).train()
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device) % classes

    def run() -> object:
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        network.zero_grad(set_to_none=True)
        return loss

    return run


def load_or_measure(plan: Plan, folder: Path, num_classes: int, size: int) -> Costs:
    """Return the costs in the comparison's folder, measured first where the methods have changed."""
    file = folder / FILE
    if file.is_file():
        known: Costs = json.loads(file.read_text(encoding="utf-8"))
        if set(known["costs"]) == set(plan.methods):
            return known
    costs = measure(plan, num_classes, size)
    write_json(file, costs)
    return costs
