"""load_checkpoint: put what fits of a file into a given network, and say what happened to every entry."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from excite.checkpoints.layouts import LAYOUTS
from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.checkpoints.report import TransferReport
from excite.checkpoints.transfer import forgive_counters, squeezed, transfer
from excite.checkpoints.unwrap import PREFIXES, State, Which
from excite.errors import ExciteError
from excite.models import NetworkSpec

SUBSETS = ("", "model.", "backbone.", "backbone.body.", "backbone.body.net.", "model.backbone.", "encoder.")


def load_checkpoint(
    model: nn.Module, source: str | Path | Mapping[str, object], weights: Which = "auto"
) -> TransferReport:
    """Copy every tensor of a file (or state dict) that has its place in `model`; keep the rest of `model` as it is.

    The file may be of any known family, wrapped, prefixed, or hold a detector whose backbone is meant; the reading that
    fills most of the model is taken. Entries of other shapes (another number of classes) are reported as mismatched.
    weights: "model" or "ema" of a file that has a running average too; "auto" as in `import_checkpoint`.
    Raises ExciteError where not one weight fits (entries of norms and counters alone do not count), naming keys of both
    sides.
    """
    return put(model, read_checkpoint(source, weights))


def put(model: nn.Module, checkpoint: Checkpoint) -> TransferReport:
    """Copy every tensor of a checkpoint that has its place in `model`; see `load_checkpoint`."""
    sources, ignored, name = _best(model, checkpoint.weights)
    report = transfer(model, checkpoint.weights, sources, checkpoint.source)
    forgive_counters(report)
    report.layout = name
    report.ignored.update(ignored)
    report.notes = [*checkpoint.notes, *report.notes]
    own = model.state_dict()
    weights = [key for key, value in own.items() if value.dim() > 1]  # norms and counters alone are no weights
    if not report.loaded or (weights and not any(key in report.loaded for key in weights)):
        theirs, ours = list(checkpoint.weights)[:3], list(own)[:3]
        few = f"not one weight fits the model ({len(report.loaded)} counters and entries of norms do)"
        first = next(iter(report.mismatched.items()), None)
        shapes = "" if first is None else f"; {first[0]} is {list(first[1][0])} there and {list(first[1][1])} here"
        raise ExciteError(
            f"{checkpoint.source}: {few if report.loaded else 'not one entry fits the model'}; the file has "
            f"{', '.join(theirs)}, ..., the model {', '.join(ours)}, ...{shapes}"
        )
    return report


def fill(name: str, checkpoint: Checkpoint) -> tuple[nn.Module, TransferReport]:
    """Return the network `name`, in eval mode, whose every entry comes from a checkpoint without a card; and how.

    Raises ExciteError where the checkpoint does not fill it.
    """
    head = next((v for k, v in reversed(checkpoint.weights.items()) if k.endswith(".weight") and v.dim() == 2), None)
    model = NetworkSpec(name, 1000 if head is None else head.shape[0]).build()
    report = put(model, checkpoint)
    if not report.complete:
        missing = [*report.fresh, *report.mismatched]
        raise ExciteError(
            f"{checkpoint.source} does not fill the network {name}: {len(missing)} entries are not in it "
            f"({', '.join(missing[:3])}, ...); load_checkpoint takes what fits"
        )
    report.model = name
    return model.eval(), report


def _best(model: nn.Module, weights: State) -> tuple[dict[str, str], dict[str, str], str]:
    """Return (model key -> file key, left out -> reason, name) of the reading that fits most numbers."""
    shapes = {k: squeezed(tuple(v.shape)) for k, v in model.state_dict().items()}
    best: tuple[int, dict[str, str], dict[str, str], str] = (-1, {}, {}, "")
    for prefix in SUBSETS:
        inside = {k[len(prefix) :]: k for k in weights if k.startswith(prefix)}
        if not inside:
            continue
        part = {k: weights[full] for k, full in inside.items()}
        readings: list[tuple[str, dict[str, str], dict[str, str]]] = [
            ("the model's own keys", {k: k for k in part}, {})
        ]
        readings += [
            (f"the model's own keys, below {outer!r}", {outer + k: k for k in part}, {})
            for outer in PREFIXES
            if all(key.startswith(outer) for key in shapes)
        ]
        readings += [(f.name, *f.translate(part)) for f in LAYOUTS if f.recognises(part)]
        for name, renamed, ignored in readings:
            fits = sum(
                part[v].numel()
                for k, v in renamed.items()
                if k in shapes and shapes[k] == squeezed(tuple(part[v].shape))
            )
            if fits > best[0]:
                outside = {k: f"outside {prefix!r}" for k in weights if not k.startswith(prefix)}
                best = (
                    fits,
                    {k: inside[v] for k, v in renamed.items()},
                    {**{inside[k]: why for k, why in ignored.items()}, **outside},
                    name + (f", under {prefix!r}" if prefix else ""),
                )
    return best[1:]
