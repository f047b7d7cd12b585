"""`excite plan`: how long an epoch takes on many GPUs, and what it waits for."""

from pathlib import Path
from typing import Any, Literal

from excite.errors import UsageError

# Any: options of networks, which those check.


def plan(
    *,
    model: str = "resnet50",
    gpus: list[int] = [8, 64, 512],  # noqa: B006  (read, never written)
    images: float = 1.28e6,
    batch_size: int = 32,
    size: int = 224,
    epochs: int = 100,
    optimizer: str = "sgd",
    ema: float = 0.0,
    card: Literal["v100", "t4", "a100", "l4", "h100", "h200"] = "a100",
    utilisation: float = 0.2,
    step_rate: float | None = None,
    decode_rate: float = 300.0,
    cores: float = 8.0,
    gpus_per_node: int = 8,
    inside: float = 200.0,
    between: float = 25.0,
    storage: float = 2.0,
    image_bytes: float = 110e3,
    options: dict[str, Any] = {},  # noqa: B006
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Predict the time of an epoch on many GPUs, and what it waits for: a calculation, nothing is trained.

    Give it what you measured: --step-rate (excite bench MODEL --task training --device cuda) and --decode-rate
    (excite bench --data SPEC). What you do not give is an assumption, and the output says so. See docs/scale.md.

    Args:
        model: a network's name: eca_resnet50, timm/NAME, torchvision/NAME.
        gpus: numbers of GPUs to compare.
        images: training images of an epoch.
        batch_size: images per step and GPU, whatever their number; the batch of a step grows with them.
        size: side of the images in pixels.
        epochs: epochs of the whole training.
        optimizer: sgd keeps one number per weight, others two.
        ema: decay of averaged weights, which a checkpoint holds too; 0 is off.
        card: the GPU, whose half-precision peak is assumed.
        utilisation: the share of that peak that a convolutional network reaches, where --step-rate is not given.
        step_rate: images per second that one GPU trains, as measured.
        decode_rate: images per second that one core decodes and augments, as measured.
        cores: processor cores for each GPU.
        gpus_per_node: GPUs in a machine.
        inside: gigabytes per second between GPUs of a machine.
        between: gigabytes per second from machine to machine.
        storage: gigabytes per second that a machine reads from storage.
        image_bytes: bytes of a stored image.
        options: options of the network, as --options.kernel_size 3,5,5,7.
        out: the JSON file to write.
        json: print JSON.

    Examples:
        excite plan --model eca_resnet50 --gpus 8 64 512 --images 1.28e6
        excite plan --model resnet50 --card h100 --step-rate 2900 --decode-rate 420 --cores 14
    """
    import json as json_

    from rich.table import Table

    from excite.common.files import write_text
    from excite.common.tables import make_console
    from excite.measure.names import builder
    from excite.measure.profile import input_shape, profile_named
    from excite.measure.scale import GIGA, PEAKS, Cluster, Work, predict, rate

    numbers = {
        "gpus": min(gpus, default=0), "images": images, "batch-size": batch_size, "size": size, "epochs": epochs,
        "gpus-per-node": gpus_per_node,
    }  # fmt: skip
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"--{name} must be at least 1, got {number}")
    rates = {
        "utilisation": utilisation, "decode-rate": decode_rate, "cores": cores, "inside": inside, "between": between,
        "storage": storage, "image-bytes": image_bytes, "step-rate": 1 if step_rate is None else step_rate,
    }  # fmt: skip
    for name, value in rates.items():
        if not value > 0:
            raise UsageError(f"--{name} must be more than 0, got {value}")
    profile = profile_named(model, builder(model, options, 1000, 3), input_shape(size), ("macs",))
    macs = profile.macs["macs"]
    learned = 4 * profile.trainable
    state = profile.weight_bytes + profile.buffer_bytes + learned * (1 if optimizer == "sgd" else 2)
    state += (profile.weight_bytes + profile.buffer_bytes) if ema else 0
    work = Work(macs, learned, state, int(images), batch_size)
    assumed = [] if step_rate is not None else [f"{100 * utilisation:g} % of the {card}'s peak"]
    cluster = Cluster(
        step_rate if step_rate is not None else rate(macs, PEAKS[card], utilisation), decode_rate, cores, gpus_per_node,
        inside * GIGA, between * GIGA, storage * GIGA, image_bytes,
    )  # fmt: skip
    rows = [predict(work, cluster, number) for number in gpus]
    values = {
        "model": model,
        "macs": macs,
        "gradient_bytes": work.weights,
        "checkpoint_bytes": work.state,
        "step_rate": round(cluster.step, 2),
        "assumed": assumed,
        "predictions": [
            {**vars(row), "step": row.step, "bottleneck": row.bottleneck, "efficiency": row.efficiency} for row in rows
        ],
    }
    if out is not None:
        write_text(out, json_.dumps(values, indent=1) + "\n")
    if json:
        print(json_.dumps(values, indent=2))
        return
    names = ("GPUs", "batch", "step", "exchange", "decoding", "reading", "epoch", "training", "GPU busy", "waits for")
    table = Table(*names)
    for row in rows:
        times = (f"{1e3 * seconds:.1f} ms" for seconds in (row.step, row.exchange, row.decode, row.read))
        table.add_row(
            f"{row.gpus:,}", f"{row.batch:,}", *times, _time(row.epoch), _time(row.epoch * epochs),
            f"{100 * row.efficiency:.0f} %", row.bottleneck,
        )  # fmt: skip
    print(
        f"{model}: {macs / 1e9:.2f} G multiply-accumulates, {work.weights / 1e6:.1f} MB of gradients per step, "
        f"{work.state / 1e6:.0f} MB per checkpoint"
    )
    make_console().print(table)
    print(
        f"one GPU trains {cluster.step:,.0f} images/s ({assumed[0] + ': an assumption' if assumed else 'as given'}), "
        f"one of {cores:g} cores per GPU decodes {decode_rate:g}; {inside:g} and {between:g} GB/s within and between "
        f"machines of {gpus_per_node}, {storage:g} GB/s from storage"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
