"""What is measured: a network in one mode, precision and engine."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from excite.common.options import PRECISIONS
from excite.errors import UsageError, unknown

MODES = ("eager", "compiled", "channels-last", "compiled-channels-last")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ENGINES = ("torch", "onnxruntime", "openvino")
TASKS = ("latency", "throughput", "training")
SUFFIXES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch"}  # of exported files: what runs them
AS_EXPORTED = "as exported"


@dataclass(frozen=True)
class Variant:
    """A network as it is run. label: what the tables call it."""

    model: str
    mode: str
    precision: str
    engine: str
    label: str


def variants(
    models: Sequence[str], modes: Sequence[str], precisions: Sequence[str], engines: Sequence[str]
) -> list[Variant]:
    """Return every combination; a label names what differs between them.

    An exported file is there once, as it was exported. Raises UsageError for unknown modes, precisions or engines, for
    a model given twice, and for a mode of torch that another engine does not have.
    """
    for kind, names, known in (
        ("mode", modes, MODES),
        ("precision", precisions, PRECISIONS),
        ("engine", engines, ENGINES),
    ):
        for name in names:
            if name not in known:
                raise unknown(kind, name, known)
    if not models:
        raise UsageError("name at least one model, as eca_resnet50")
    if len(set(models)) < len(models):
        twice = next(m for m in models if models.count(m) > 1)
        raise UsageError(f"model {twice!r} is named twice; each model is measured once per round")
    combinations: list[Variant] = []
    for engine, mode, precision, model in itertools.product(engines, modes, precisions, models):
        if is_exported(model):
            once = Variant(model, "eager", AS_EXPORTED, SUFFIXES[Path(model).suffix], model)
            combinations += [] if once in combinations else [once]
            continue
        if engine != "torch" and mode != "eager":
            raise UsageError(f"engine {engine!r} has no mode {mode!r}: modes are torch's; use --mode eager")
        tags = [t for t, many in ((engine, engines), (mode, modes), (precision, precisions)) if len(many) > 1]
        combinations.append(Variant(model, mode, precision, engine, f"{model} [{' '.join(tags)}]" if tags else model))
    return combinations


def is_exported(name: str) -> bool:
    """Return whether a name is that of a file of `excite export`: it has an engine and a precision of its own."""
    return Path(name).suffix in SUFFIXES and Path(name).is_file()


def exported(path: str, task: str, shape: tuple[int, ...], device: str) -> Callable[[], torch.Tensor]:
    """Return a function that runs an exported file once on a fixed input of `shape`.

    Raises UsageError for a task, a size, a batch or a device that it was not exported for.
    """
    from excite.export import open_exported

    network = open_exported(path)
    if task == "training" or device == "cuda":
        raise UsageError(f"{path} is an exported network, which runs on the CPU and does not train")
    if shape[1:] != (network.card.in_channels, network.input_size, network.input_size):
        raise UsageError(
            f"{path} was exported for {network.card.in_channels} channels of {network.input_size} pixels, not "
            f"{list(shape[1:])}; give --size {network.input_size}"
        )
    if network.batch not in (None, shape[0]):
        raise UsageError(
            f"{path} was exported for batches of {network.batch}, not {shape[0]}; take --task latency, or export it "
            "with --dynamic"
        )
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    network(x)  # of the card's shape, or refused
    return lambda: network.engine(x)


def example(variant: Variant, shape: tuple[int, ...], device: str, *, cast: bool) -> torch.Tensor:
    """Return a random input for a variant, seeded; `cast`: in the variant's precision."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    if cast and variant.engine == "torch":
        x = x.to(DTYPES[variant.precision])
    if "channels-last" in variant.mode and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x


def prepare(variant: Variant, network: nn.Module, device: str, *, cast: bool) -> nn.Module:
    """Move a network to its device, precision and memory format."""
    network = network.to(device)
    if cast:
        network = network.to(DTYPES[variant.precision])
    if "channels-last" in variant.mode:
        network = network.to(memory_format=torch.channels_last)
    return network


def compile_if_asked(variant: Variant, network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile where the mode says so."""
    return torch.compile(network) if variant.mode.startswith("compiled") else network


def inference(variant: Variant, network: nn.Module, shape: tuple[int, ...], device: str) -> Callable[[], torch.Tensor]:
    """Return a function that runs the network once on a fixed input of `shape`, without gradients.

    Other precisions than fp32 cast the weights and the input. Engines other than torch come from `excite.export`.
    """
    network.eval()
    if variant.engine != "torch":
        return _engine(variant, network, shape)
    ready = compile_if_asked(variant, prepare(variant, network, device, cast=True))
    x = example(variant, shape, device, cast=True)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return ready(x)

    return call


def _engine(variant: Variant, network: nn.Module, shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    from excite.export import open_engine

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    run = open_engine(network, variant.engine, x, variant.precision)
    return lambda: run(x)


def training(variant: Variant, network: nn.Module, shape: tuple[int, ...], device: str) -> Callable[[], torch.Tensor]:
    """Return a function that takes one training step: forward, cross-entropy, backward, SGD with momentum.

    Other precisions than fp32 use autocast with float32 weights (fp16 with a gradient scaler).
    """
    if variant.engine != "torch":
        raise UsageError(f"engine {variant.engine!r} does not train; leave the task 'training' out")
    if variant.precision == "fp16" and device == "cpu":
        raise UsageError("training in fp16 needs CUDA; on a CPU use --precision bf16 or fp32")
    network.train()
    network = prepare(variant, network, device, cast=False)
    ready = compile_if_asked(variant, network)
    x = example(variant, shape, device, cast=False)
    with torch.no_grad():
        classes = network.eval()(x[:1]).shape[-1]
    network.train()
    y = torch.arange(shape[0], device=device) % classes
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    dtype = DTYPES[variant.precision]
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(ready(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        return loss.detach()

    return step
