"""Going on from the file of another training script: its weights, epoch and optimizer, as far as they fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from excite.checkpoints.importing import network_of
from excite.checkpoints.loading import put
from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.checkpoints.transfer import squeezed
from excite.common.options import Option
from excite.errors import ExciteError, UsageError

# What each optimizer keeps of a parameter.
KEPT = {
    "sgd": ("momentum_buffer",),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
}
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass
class Start:
    """Where a run goes on. epochs: completed; state: of the optimizer, by the names of our network's parameters.

    notes: what was taken and what was left aside.
    """

    source: str
    epochs: int = 0
    state: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def network_options(file: str | Path) -> dict[str, Option]:
    """Return the options of a run that goes on from a file: its network, with options and placement.

    Raises UsageError for a file of ours, with what to do instead, and for one that does not tell its network.
    """
    checkpoint = read_checkpoint(file)
    _refuse_own(checkpoint, Path(file))
    try:
        report = network_of(checkpoint)[1]
    except ExciteError as error:
        raise UsageError(f"--resume takes a run directory, and nothing of {file} fits a run: {error}") from None
    options = dict(report.options)
    placement = options.pop("placement", None)
    return {"model": report.model, "options": options, **({"placement": placement} if placement else {})}


def _refuse_own(checkpoint: Checkpoint, place: Path) -> None:
    if checkpoint.card is None:
        return
    run = place.parent.parent if place.parent.name == "checkpoints" else place.parent
    remedy = f"--resume {run}" if (run / "config.yaml").is_file() else f"--init {place} starts a new run from it"
    raise UsageError(f"--resume takes a run directory, and {place} is a checkpoint; {remedy}")


def go_on(model: nn.Module, file: str | Path, optimizer: str, epochs: int) -> Start:
    """Load a file's weights into a network, and return where its training goes on.

    optimizer: of the run (sgd, adam, adamw); epochs: that the run shall have. Raises UsageError where the weights do
    not fill the network, and where the file has trained as long already.
    """
    checkpoint = read_checkpoint(file)
    _refuse_own(checkpoint, Path(file))
    report = put(model, checkpoint)
    if not report.complete:
        other = next(iter([*report.mismatched, *report.fresh]))
        raise UsageError(
            f"{file} does not fill the network of this run (first: {other}), so its training cannot go on; "
            f"--init {file} starts a new run from what fits"
        )
    start = Start(str(file), notes=[f"{len(report.loaded)} entries, {report.elements:,} numbers, fill the network"])
    start.epochs = _completed(checkpoint.beside, start.notes)
    if start.epochs >= epochs:
        raise UsageError(f"{file} has trained {start.epochs} epochs; --epochs must be more, got {epochs}")
    states = list(_optimizers(checkpoint.beside))
    if not states:
        start.notes.append("it holds no optimizer; the run's own starts afresh")
        return start
    reason = _match(states[0], checkpoint, report.loaded, model, optimizer, start)
    if reason:
        start.state.clear()
        start.notes.append(f"its optimizer's state is left aside: {reason}")
    left = [
        key for key in checkpoint.beside if not isinstance(checkpoint.beside[key], Mapping | list) and key != "epoch"
    ]
    start.notes += [f"left aside: {', '.join(left)}"] if left else []
    return start


def _completed(beside: Mapping[str, object], notes: list[str]) -> int:
    """Return how many epochs are completed. Scripts after PyTorch's ImageNet example count, others number from 0."""
    epoch = beside.get("epoch")
    if isinstance(epoch, torch.Tensor) and epoch.numel() == 1:
        epoch = int(epoch)
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch < 1_000_000:
        notes.append("it holds no epoch; training starts with epoch 1")
        return 0
    counts = "arch" in beside and "version" not in beside
    completed = epoch if counts else epoch + 1
    how = "counted" if counts else "numbered from 0"
    notes.append(f"its epoch is {epoch} ({how}); training goes on with epoch {completed + 1}")
    return completed


def _optimizers(beside: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield the optimizer states that stand beside the weights."""
    for name, value in beside.items():
        for content in value if isinstance(value, list) else [value]:
            if "optim" in name and isinstance(content, Mapping) and {"state", "param_groups"} <= set(content):
                yield content


def _match(
    content: Mapping[str, object],
    checkpoint: Checkpoint,
    sources: Mapping[str, str],
    model: nn.Module,
    optimizer: str,
    start: Start,
) -> str:
    """Put what an optimizer keeps under the names of our parameters; returns why not, "" where all went well.

    An optimizer numbers its parameters in the network's order, which is that of the file's keys.
    """
    groups, state = content["param_groups"], content["state"]
    if (
        not isinstance(groups, list)
        or not isinstance(state, Mapping)
        or not all(isinstance(g, Mapping) for g in groups)
    ):
        return "it is damaged"
    if len(groups) != 1:
        return f"its parameters are in {len(groups)} groups, whose order the file does not tell"
    parameters = dict(model.named_parameters())
    ours = {theirs: name for name, theirs in sources.items() if name in parameters}
    buffers = {theirs for name, theirs in sources.items() if name not in parameters}
    keys = [k for k in checkpoint.weights if k not in buffers and not k.endswith(BUFFERS)]
    numbers = groups[0].get("params")
    if not isinstance(numbers, list) or len(numbers) != len(keys):
        count = len(numbers) if isinstance(numbers, list) else 0
        return f"it has {count} parameters, the weights have {len(keys)}"
    fresh = 0
    for number, key in zip(numbers, keys, strict=True):
        entries = state.get(number)
        name = ours.get(key)
        if name is None:
            continue  # a parameter that the original has and never uses
        if not isinstance(entries, Mapping) or any(entries.get(k) is None for k in KEPT[optimizer]):
            if isinstance(entries, Mapping) and entries and any(v is not None for v in entries.values()):
                return f"it is of another optimizer than {optimizer} (it keeps {', '.join(map(str, entries))})"
            fresh += 1
            continue
        values = {}
        for word in KEPT[optimizer]:
            value = torch.as_tensor(entries[word])
            if not value.is_floating_point() or not torch.isfinite(value).all():
                return f"{word} of {key} holds numbers that are none"
            if word != "step":
                if squeezed(tuple(value.shape)) != squeezed(tuple(parameters[name].shape)):
                    return f"{word} of {key} is {list(value.shape)}, the parameter {list(parameters[name].shape)}"
                value = value.reshape(parameters[name].shape)
            values[word] = value
        start.state[name] = values
    if not start.state:
        return "it has not taken a step yet"
    start.notes.append(
        f"its optimizer's state ({', '.join(KEPT[optimizer])}) is taken for {len(start.state)} parameters"
        + (f"; {fresh} had none" if fresh else "")
    )
    used = {k: groups[0][k] for k in ("lr", "momentum", "weight_decay") if isinstance(groups[0].get(k), int | float)}
    start.notes.append(
        f"its {', '.join(f'{k} {v}' for k, v in used.items())} give way to the run's own and its schedule"
    )
    return ""
