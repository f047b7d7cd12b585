"""`excite bench`: how fast networks are, measured in turn, or how fast an input pipeline is."""

import sys
from pathlib import Path
from typing import Any, Literal

from excite.common.options import Precision
from excite.errors import UsageError

# Any: options of methods and networks, which those check.


def bench(
    models: list[str] = [],  # noqa: B006  (read, never written)
    *,
    data: str | None = None,
    workers: int = 0,
    model: str | None = None,
    task: list[Literal["latency", "throughput", "training"]] | None = None,
    batch_size: list[int] | None = None,
    mode: list[Literal["eager", "compiled", "channels-last", "compiled-channels-last"]] | None = None,
    precision: list[Precision] | None = None,
    engine: list[Literal["torch", "onnxruntime", "openvino"]] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    size: str | None = None,
    rounds: int = 15,
    warmup: int = 3,
    min_time: float = 0.2,
    threads: int | None = None,
    memory: bool = True,
    num_classes: int | None = None,
    in_channels: int | None = None,
    placement: Literal["all", "first", "last"] = "all",
    attach: str | None = None,
    attach_sites: str | None = None,
    attach_options: dict[str, Any] = {},  # noqa: B006  (read, never written)
    options: dict[str, Any] = {},  # noqa: B006
    plot: Path | None = None,
    accuracy_plot: Path | None = None,
    accuracy: list[str] | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure latency, throughput, training steps and peak memory of networks, or with --data an input pipeline.

    The networks run in turn (A B C, C B A, ...), so that a drifting machine drifts under all of them. Times are medians
    over the rounds with quartiles; ratios to the first network are taken within each round.

    Args:
        models: names (eca_resnet50, timm/NAME, torchvision/NAME, path.py:factory), checkpoints, or exported files
            (.onnx, .xml, .pt2); ratios refer to the first.
        data: data spec whose training batches are measured alone: images/s, per core.
        workers: processes that read them; 0 reads in this one, on one thread.
        model: build this network for the weights of checkpoints instead of the ones that they name.
        task: what is timed (latency: batch 1); latency and throughput unless told otherwise, latency alone where
            exported files are among the models.
        batch_size: batch sizes of throughput and training; 8 unless told otherwise.
        mode: how the network runs; eager unless told otherwise.
        precision: of weights and inputs (training: by autocast); fp32 unless told otherwise.
        engine: what runs it; torch unless told otherwise.
        device: where to run; auto takes a GPU if there is one.
        size: side of the input in pixels, or HEIGHTxWIDTH; 224 unless told otherwise, with --data the data's own.
        rounds: how often each network is timed.
        warmup: calls of each network before anything is timed.
        min_time: seconds that one sample lasts at least.
        threads: threads of torch on the CPU.
        memory: measure peak memory.
        num_classes: classes of networks given by name; 1000 unless told otherwise.
        in_channels: channels of the input; unless told otherwise those of checkpoints and exported files, else 3.
        placement: which blocks of a stage get attention.
        attach: attach this attention method to each network; FILE.py:NAME is one of your own.
        attach_sites: where to attach it: a preset, a pattern or paths with commas; default: the method's own place.
        attach_options: options of the attached method, as --attach-options.reduction 8.
        options: options of the networks, as --options.kernel_size 3,5,5,7, or of one of them, as
            --options.eca_resnet50.kernel_size 3,5,5,7.
        plot: write a bar chart to this PNG file.
        accuracy_plot: write accuracy over latency to this PNG file.
        accuracy: accuracies for that plot, as eca_resnet50=77.42; the published ones unless given.
        out: the JSON file to write: everything, with all samples and the environment.
        json: print JSON.

    Examples:
        excite bench resnet50 eca_resnet50 timm/ecaresnet50d --task latency throughput training
        excite bench model.onnx model.xml
        excite bench --data imagefolder:PATH --workers 4
        excite bench resnet18 se_resnet18 --engine torch onnxruntime --rounds 9 --plot speed.png
    """
    if (data is None) == (not models):
        raise UsageError("name networks to measure, or with --data SPEC an input pipeline; one of the two")
    if data is not None:
        _input(data, workers, size, batch_size, rounds, min_time, out, json)
        return
    from excite.checkpoints.reading import is_checkpoint
    from excite.common.options import options_of, to_pairs
    from excite.measure.bench.run import bench as run
    from excite.measure.bench.variants import is_exported, variants
    from excite.measure.names import accuracies, builder, channels_of, opener, parse_size
    from excite.measure.profile import input_shape

    if threads is not None:
        _set_threads(threads)
    sides = parse_size(size or "224")
    chosen = variants(models, mode or ["eager"], precision or ["fp32"], engine or ["torch"])
    known, label = accuracies(models, accuracy)
    settings: dict[str, Any] = {
        "placement": placement,
        "attach": attach,
        "attach_sites": attach_sites,
        "attach_options": attach_options,
    }
    if all(map(is_checkpoint, models)) and (options or attach or placement != "all" or num_classes is not None):
        raise UsageError(
            "--options, --attach, --placement and --num-classes are for networks given by name; checkpoints say theirs"
        )
    if model is not None and not any(map(is_checkpoint, models)):
        raise UsageError(f"--model {model} is for the weights of a checkpoint; {', '.join(models)} are networks' names")
    files = [name for name in models if is_exported(name)]
    if files and (model is not None or engine is not None or precision is not None or mode is not None):
        raise UsageError(
            f"{files[0]} is an exported network, with an engine and a precision of its own; measure it "
            "without --model, --engine, --precision and --mode"
        )
    if in_channels is None:
        in_channels = channels_of(list(filter(is_checkpoint, models)), model)
    shape = input_shape(sides, in_channels)[1:]
    builders = {
        name: opener(name, model)
        if is_checkpoint(name)
        else builder(
            name,
            options_of(name, models, options),
            1000 if num_classes is None else num_classes,
            in_channels,
            **settings,
        )
        for name in models
    }
    report = run(
        chosen,
        builders,
        input_shape=shape,
        tasks=task or (["latency"] if files else ["latency", "throughput"]),
        batch_sizes=batch_size or [8],
        device=device,
        rounds=rounds,
        warmup=warmup,
        min_time=min_time,
        memory=memory,
        progress=_progress,
    )
    values = report.to_dict({name: " ".join(to_pairs(options_of(name, models, options))) for name in models})
    _write(report, values, plot, accuracy_plot, known, label, out, json)


def _input(
    data: str,
    workers: int,
    size: str | None,
    batch_size: list[int] | None,
    rounds: int,
    seconds: float,
    out: Path | None,
    json: bool,
) -> None:
    """Measure an input pipeline, with the batches of the recipe that fits its data."""
    import json as json_

    from excite.common.files import write_text
    from excite.measure.bench.environment import environment, in_words
    from excite.measure.pipeline import input_speed
    from excite.train.config import TrainConfig

    changes: dict[str, Any] = {"data": data, "workers": workers}
    if size is not None and not size.isdecimal():
        raise UsageError(f"--size {size}: images of a training are square; one number of pixels is needed")
    if size is not None:
        changes["size"] = int(size)
    if batch_size:
        changes["batch_size"] = batch_size[0]
    if rounds < 3 or seconds <= 0:
        raise UsageError(f"--rounds {rounds}, --min-time {seconds}: at least 3 rounds and some time")
    config = TrainConfig.from_recipe("eca_resnet50", **changes)
    config.check()
    speed = input_speed(
        config, rounds=rounds, seconds=seconds, progress=lambda done, total: _progress("input", done, total)
    )
    values = {**speed.to_dict(), "environment": environment()}
    print(json_.dumps(values, indent=2) if json else f"{speed.in_words()}\n{in_words(environment())}")
    if out is not None:
        print(f"wrote {write_text(out, json_.dumps(values, indent=1) + chr(10))}", file=sys.stderr)


def _set_threads(threads: int) -> None:
    import torch

    if threads < 1:
        raise UsageError(f"--threads {threads}: at least 1")
    torch.set_num_threads(threads)


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\r\033[K" if done == total else ""
        print(f"\r\033[K{what}: round {done}/{total}", end=end, file=sys.stderr, flush=True)


def _write(
    report: object,
    values: dict[str, object],
    plot: Path | None,
    accuracy_plot: Path | None,
    known: dict[str, float],
    label: str,
    out: Path | None,
    json: bool,
) -> None:
    """Print the tables or the JSON and write the files asked for."""
    import json as json_

    from excite.common.files import write_text
    from excite.common.tables import make_console
    from excite.measure.bench import plots
    from excite.measure.bench.report import describe, tables
    from excite.measure.bench.run import Report

    assert isinstance(report, Report)
    if json:
        print(json_.dumps(values, indent=2))
    else:
        console = make_console()
        for table in tables(report):
            console.print(table)
        print(describe(report))
    written = []
    if out is not None:
        written.append(write_text(out, json_.dumps(values, indent=1) + "\n"))
    if plot is not None:
        written.append(plots.bars(report, plot))
    if accuracy_plot is not None:
        written.append(plots.latency_accuracy(report, known, accuracy_plot, label))
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
