"""What each variant costs: counted once, and timed against its baseline in one interleaved session."""

from collections.abc import Callable
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch import nn

from excite.common.checks import Number, fits, shown
from excite.common.files import write_json
from excite.comparison.plan import Plan, read_values
from excite.errors import ExciteError
from excite.measure.bench import environment, interleave, ratio
from excite.measure.bench.environment import in_words
from excite.measure.bench.memory import peak_memory
from excite.measure.profile import profile_model
from excite.models import spec_of
from excite.runtime import pick_device
from excite.train.network import spec_from

FILE = "cost.json"


class Cost(TypedDict):
    """A variant's cost for images of `size` pixels.

    latency_ms: one image; throughput: images/s at `batch` images; step_ms: forward and backward of `batch` images;
    each with its ratio to the baseline and the middle 90 % of the rounds' ratios; training_memory: peak bytes of one
    such step. Files of earlier versions have no step.
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
    step_ms: NotRequired[float]
    step_ratio: NotRequired[float]
    step_spread: NotRequired[tuple[float, float]]


class Costs(TypedDict):
    """The costs by the variants' names, and the machine that they were measured on."""

    costs: dict[str, Cost]
    environment: dict[str, object]


def networks(plan: Plan, num_classes: int) -> dict[str, nn.Module]:
    """Return a freshly built network per variant, by its name."""
    configs = {plan.name_of(variant): plan.config(variant, 0, Path("unused")) for variant in plan.variants}
    return {name: spec_from(config, num_classes).build() for name, config in configs.items()}


def measure(
    plan: Plan, num_classes: int, size: int, *, batch: int = 64, rounds: int = 15, min_time: float = 0.05
) -> Costs:
    """Return `{"costs": {name: Cost}, "environment": ...}` as plain containers."""
    nets = networks(plan, num_classes)
    device = pick_device(plan.config(plan.variants[0], 0, Path("unused")).device)
    profiles = {m: profile_model(n, size) for m, n in nets.items()}
    clock = None
    if device == "cuda":
        from excite.measure.bench.timing import CudaClock

        clock = CudaClock()
    steps = {m: training_step(n, size, batch, num_classes, device) for m, n in nets.items()}
    memory = {m: peak_memory(steps[m], n, device) for m, n in nets.items()}
    training = interleave(steps, rounds, min_time=min_time, clock=clock)
    for network in nets.values():
        network.to(device).eval()
    one = interleave(
        {m: inference(n, size, 1, device) for m, n in nets.items()}, rounds, min_time=min_time, clock=clock
    )
    many = interleave(
        {m: inference(n, size, batch, device) for m, n in nets.items()}, rounds, min_time=min_time, clock=clock
    )
    costs = {}
    for variant in plan.variants:
        name, first = plan.name_of(variant), plan.name_of(plan.baseline(variant))
        latency, bulk, step = (ratio(samples[name], samples[first]) for samples in (one, many, training))
        costs[name] = Cost(
            parameters=profiles[name].params,
            attention_parameters=profiles[name].attention_params,
            macs=profiles[name].macs["macs"],
            size=size,
            batch=batch,
            latency_ms=1e3 * one[name].median,
            latency_ratio=latency.value,
            latency_spread=(latency.low, latency.high),
            throughput=batch / many[name].median,
            throughput_ratio=1 / bulk.value,
            throughput_spread=(1 / bulk.high, 1 / bulk.low),
            training_memory=memory[name],
            step_ms=1e3 * training[name].median,
            step_ratio=step.value,
            step_spread=(step.low, step.high),
        )
    return {"costs": costs, "environment": environment(device)}


def inference(network: nn.Module, size: int, batch: int, device: str) -> Callable[[], object]:
    """Return a call that runs `batch` images through a network in eval mode."""
    images = _images(network, size, batch, device)

    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def training_step(network: nn.Module, size: int, batch: int, classes: int, device: str) -> Callable[[], object]:
    """Return a call that runs forward and backward over `batch` images."""
    network.to(device).train()
    images = _images(network, size, batch, device)
    labels = torch.zeros(batch, dtype=torch.long, device=device) % classes

    def run() -> object:
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        network.zero_grad(set_to_none=True)
        return loss

    return run


def _images(network: nn.Module, size: int, batch: int, device: str) -> torch.Tensor:
    return torch.randn(batch, spec_of(network).in_channels, size, size, device=device)


def load_or_measure(plan: Plan, folder: Path, num_classes: int, size: int) -> Costs:
    """Return the costs in the comparison's folder, measured first where the variants have changed."""
    known = read(folder)
    timed = known is not None and all("step_ms" in one for one in known["costs"].values())
    if known is not None and timed and set(known["costs"]) == set(plan.names):
        return known
    costs = measure(plan, num_classes, size)
    write_json(folder / FILE, costs)
    return costs


def read(folder: Path) -> Costs | None:
    """Return the costs in a comparison's folder, None where there are none. Raises ExciteError for a broken file."""
    file = folder / FILE
    if not file.is_file():
        return None
    values = read_values(file)
    remedy = "remove it, and they are measured again"
    costs, machine = values.get("costs"), values.get("environment")
    if not isinstance(costs, dict) or not all(map(_is_cost, costs.values())):
        raise ExciteError(f"{file} is broken: costs are {shown(costs)}; {remedy}")
    if not isinstance(machine, dict):
        raise ExciteError(f"{file} is broken: its environment is {shown(machine)}; {remedy}")
    try:
        in_words(machine)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExciteError(f"{file} is broken: its environment is {shown(machine)} ({error!r}); {remedy}") from None
    return {"costs": costs, "environment": machine}


def _is_cost(values: object) -> bool:
    if not isinstance(values, dict) or not Cost.__required_keys__ <= values.keys():
        return False
    numbers: list[object] = []
    for name in Cost.__annotations__.keys() & values.keys():
        if name.endswith("_spread"):
            if not isinstance(values[name], list) or len(values[name]) != 2:
                return False
            numbers += values[name]
        else:
            numbers.append(values[name])
    return all(fits(number, Number) for number in numbers)
