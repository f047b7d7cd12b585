"""import_checkpoint: from a file of any known family to the network it belongs to."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from excite.backbones.names import ALIASES
from excite.card import Preparation
from excite.checkpoints.backbone import SMALL_DEPTHS, Backbone, read_backbone
from excite.checkpoints.bundle import bounded, build
from excite.checkpoints.infer import attention_options, emca_options, method_of
from excite.checkpoints.layouts import LAYOUTS, OURS, Layout
from excite.checkpoints.loading import fill
from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.checkpoints.report import TransferReport
from excite.checkpoints.transfer import forgive_counters, transfer
from excite.checkpoints.unwrap import AVERAGED, Which, counts
from excite.common.options import Option
from excite.errors import ExciteError
from excite.models import NetworkSpec, describe, spec_of

IMAGENET: Preparation = {"size": 224, "resize": 256, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CIFAR: Preparation = {"size": 32, "resize": 32, "mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
# Where a network of a known family begins inside a larger one: its first block.
INSIDE = re.compile(r"(.*?)(?:layer1\.0|stage1\.0|features\.1)\.")
COUNTERS_OF_THOP = ("total_ops", "total_params")
SMALL = tuple(f"resnet{depth}" for depth in SMALL_DEPTHS)


def import_checkpoint(
    source: str | Path | Mapping[str, object], model: str | None = None, weights: Which = "auto"
) -> tuple[nn.Module, TransferReport]:
    """Build the network that a file (or state dict) belongs to and load every tensor of it.

    The family is recognised by keys and shapes; depth, kernel sizes, reduction, biases, stem, classes and EMCA's form
    are read off the weights. The network has the file's precision (half precision becomes float32), is in eval mode
    and carries its card as `excite_card`. model: build this network instead; the file must fill it. weights: "model" or
    "ema" of a file that has a running average too; "auto" takes the model's own, or the average where it is alone.
    Raises UsageError for a missing file; ExciteError for a file that is damaged, needs code to be run, is of no known
    family, or does not fill its network.
    """
    return network_of(read_checkpoint(source, weights), model)


def network_of(checkpoint: Checkpoint, model: str | None = None) -> tuple[nn.Module, TransferReport]:
    """Return the network that a checkpoint belongs to, and the report; see `import_checkpoint`."""
    if checkpoint.card is not None:
        return _ours(checkpoint, model)
    if model is not None:
        return fill(model, checkpoint)
    checkpoint = _network_inside(checkpoint)
    layout = checkpoint.layout
    if layout is None:
        if checkpoint.named is not None:
            return _ours(replace(checkpoint, card=checkpoint.named), None, "the network of its config.json")
        raise ExciteError(_unrecognised(checkpoint))
    sources, ignored = layout.translate(checkpoint.weights)
    renamed = {ours: checkpoint.weights[theirs] for ours, theirs in sources.items()}
    try:
        name, backbone, options = _network(layout, renamed, checkpoint.weights)
        built = {k: v for k, v in options.items() if k != "placement"}
        placement = options.get("placement", "all")
        with bounded(checkpoint):
            network = NetworkSpec(name, backbone.num_classes, backbone.in_channels, built, placement).build()
    except ExciteError as error:
        raise ExciteError(f"{checkpoint.source}, recognised as {layout.name}: {error}") from error
    if any(v.dtype == torch.float64 for v in checkpoint.weights.values()):
        network = network.double()
    report = transfer(network, checkpoint.weights, sources, checkpoint.source)
    forgive_counters(report)
    report.layout, report.model, report.options = layout.name, name, options
    report.ignored.update(ignored)
    report.notes = [*checkpoint.notes, *report.notes, *([layout.note] if layout.note else []), *_assumptions(backbone)]
    _check(report, checkpoint.source)
    named = checkpoint.named
    if named is not None and named.preprocess is not None and named.num_classes == backbone.num_classes:
        describe(network, preprocess=named.preprocess, class_names=named.class_names)
        report.notes.append(f"images are prepared as its config.json says: {_preparation(named.preprocess)}")
        return network.eval(), report
    card = describe(network, preprocess=_preprocess(backbone))
    if card.preprocess:
        report.notes.append(f"images are prepared as the family's recipes do: {_preparation(card.preprocess)}")
    return network.eval(), report


def open_classifier(path: str | Path, model: str | None = None) -> tuple[nn.Module, NetworkSpec]:
    """Return (classifier in eval mode, its spec) of a file of any kind or a run directory; authors' files are imported.

    model: build this network for the weights instead. Raises as `import_checkpoint`, and for a detector's file.
    """
    network = network_of(read_checkpoint(path), model)[0]
    return network, spec_of(network)


def _network_inside(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without what is no part of the network: numbers, counters, entries under other names."""
    weights, notes = checkpoint.weights, list(checkpoint.notes)
    numbers = [key for key, value in weights.items() if counts(key, value)]
    counters = [key for key in weights if key.rsplit(".", 1)[-1] in COUNTERS_OF_THOP]
    places = {match[1] for key in weights if (match := INSIDE.match(key))}
    place = min(places, key=lambda p: (bool(AVERAGED.search(p)), len(p)), default="")
    copies = tuple(p for p in places if p.startswith(place) and p != place and AVERAGED.search(p))
    outside = [k for k in weights if (not k.startswith(place) or k.startswith(copies)) and k not in numbers]
    if numbers:
        notes.append(f"numbers beside the weights, left aside: {', '.join(numbers)}")
    if counters:
        notes.append(f"{len(counters)} counters of thop ({', '.join(COUNTERS_OF_THOP)}) left aside")
    if outside:
        notes.append(f"weights taken from {place!r}; {len(outside)} entries outside it left aside: {outside[0]}, ...")
    left = {*numbers, *counters, *outside}
    kept = {key.removeprefix(place): value for key, value in weights.items() if key not in left}
    return replace(checkpoint, weights=kept, notes=notes)


def _ours(
    checkpoint: Checkpoint, name: str | None, by: str = "excite, with its card"
) -> tuple[nn.Module, TransferReport]:
    """Build a file of ours by its card; name: build this network instead of the one that it names.

    by: who said which network it is, for the report.
    """
    model = build(checkpoint, name)
    card = spec_of(model)
    state = model.state_dict()
    report = TransferReport(by, card.name, dict(card.options), {k: k for k in state})
    report.elements = sum(v.numel() for v in state.values())
    return model, report


def _preprocess(backbone: Backbone) -> Preparation | None:
    """Return how these networks' images are prepared: ImageNet's or CIFAR-10's way, by the stem."""
    if backbone.in_channels != 3:
        return None
    small = backbone.name.endswith("_cifar") or (backbone.name in SMALL and "stem" not in backbone.options)
    return (CIFAR if small else IMAGENET).copy()


def _preparation(how: Preparation) -> str:
    return f"resize {how['resize']}, crop {how['size']}, mean {how['mean']}, deviation {how['std']}"


def _network(
    layout: Layout, state: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]
) -> tuple[str, Backbone, dict[str, Option]]:
    """Return name, backbone and options of the network."""
    backbone = read_backbone(state)
    method = method_of(backbone) if layout is OURS else layout.method
    options = {**backbone.options, **attention_options(method, backbone), **layout.options(original)}
    if method.startswith("emca_"):
        options.update(emca_options(method, backbone))
    elif method not in ("none", "bam", "psa", "ma"):
        options.update(_placement(backbone))
    if method == "none" and any(m for stage in backbone.blocks for m in stage):
        raise ExciteError("blocks have attention that the layout does not explain")
    name = backbone.name if method == "none" else f"{method}_{backbone.name}"
    return next((paper for paper, full in ALIASES.items() if full == name), name), backbone, options


def _placement(backbone: Backbone) -> dict[str, str]:
    """Return where attention is, if not in all blocks. Raises ExciteError for any other pattern."""
    has = [[bool(m) for m in stage] for stage in backbone.blocks]
    patterns = {
        "all": [[True] * len(s) for s in has],
        "first": [[b == 0 for b in range(len(s))] for s in has],
        "last": [[b == len(s) - 1 for b in range(len(s))] for s in has],
    }
    for name, pattern in patterns.items():
        if has == pattern:
            return {} if name == "all" else {"placement": name}
    where = [[b for b, there in enumerate(s) if there] for s in has]
    raise ExciteError(f"attention sits in the blocks {where} of the stages; known: all, the first or the last of each")


def _assumptions(backbone: Backbone) -> list[str]:
    """Return what no weight can tell."""
    if backbone.name.endswith("_cifar"):
        return ["a 3x3 first convolution is taken as the CIFAR stem: stride 1, no max pool"]
    if backbone.name == "mobilenet_v2":
        return ["strides cannot be read off weights: those of the ImageNet network are taken"]
    return []


def _check(report: TransferReport, source: str) -> None:
    wrong = [f"{k} is {list(f)} in the file and {list(m)} in the network" for k, (f, m) in report.mismatched.items()]
    wrong += [f"{k} is not in the file" for k in report.fresh]
    wrong += [
        f"{k} of the file has no place in the network" for k, why in report.ignored.items() if why.startswith("no such")
    ]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ExciteError(
            f"{source} was recognised as {report.layout} and taken for {report.model}, but does not fill it: "
            f"{'; '.join(wrong[:4])}{more}. For a partial match use load_checkpoint(model, ...)"
        )


def _unrecognised(checkpoint: Checkpoint) -> str:
    keys = list(checkpoint.weights)
    shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
    known = "; ".join(layout.name for layout in LAYOUTS)
    return f"{checkpoint.source} is of no known family; its keys: {shown}. Known: {known}"
