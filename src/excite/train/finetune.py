"""What learns, when, and how fast: frozen parts, a backbone that waits, learning rates by depth."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from excite.errors import UsageError, near
from excite.inspect.attention import attention_parameters
from excite.train.config import TrainConfig


class Parts(NamedTuple):
    """The parameters of a network by their paths: its classifier, its attention, and all else from input to output."""

    head: dict[str, nn.Parameter]
    attention: dict[str, nn.Parameter]
    backbone: dict[str, nn.Parameter]


def parts_of(model: nn.Module, num_classes: int) -> Parts:
    """Return the parts of a network. The head is its last layer with as many outputs as there are classes.

    Raises UsageError where no layer has.
    """
    layers = [
        path
        for path, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter)
        and weight.dim() >= 2
        and len(weight) == num_classes
    ]
    if not layers:
        raise UsageError(
            f"the network has no layer with {num_classes} outputs, so its classifier cannot be told from its backbone: "
            "leave --freeze-backbone-epochs, --backbone-lr-factor and --layer-decay at 0, 1 and 1"
        )
    attention = dict(attention_parameters(model))
    named = dict(model.named_parameters())
    head = {path: p for path, p in named.items() if path.rpartition(".")[0] == layers[-1]}
    backbone = {path: p for path, p in named.items() if path not in head and path not in attention}
    return Parts(head, attention, backbone)


def is_untrained(model: nn.Module) -> bool:
    """True where every norm of a network stands as it was made: no running mean, no bias. So does a network of none."""
    norms = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
    values = [getattr(m, n, None) for m in model.modules() if isinstance(m, norms) for n in ("running_mean", "bias")]
    return not any(bool(value.detach().any()) for value in values if value is not None)


def freeze(model: nn.Module, patterns: Sequence[str]) -> str:
    """Stop what the patterns name from learning; return what that is, in words.

    A pattern is the path of a module or a parameter, with * for any text. A batch norm of which no parameter learns
    keeps its running statistics, too (`hold_norms`). Raises UsageError for a pattern that names nothing, and where
    nothing is left to learn.
    """
    named = dict(model.named_parameters())
    frozen: set[str] = set()
    for pattern in patterns:
        matched = {path for path in named if any(fnmatchcase(part, pattern) for part in _above(path))}
        if not matched:
            known = list(dict.fromkeys(part for path in named for part in _above(path)))
            close = near(pattern, known)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(_tops(named))}"
            raise UsageError(f"--freeze {pattern}: no module or parameter of that name; {hint}")
        frozen |= matched
    for path in frozen:
        named[path].requires_grad_(False)
    if not any(p.requires_grad for p in named.values()):
        raise UsageError(f"--freeze {' '.join(patterns)} leaves nothing to learn")
    count, whole = sum(named[path].numel() for path in frozen), sum(p.numel() for p in named.values())
    norms = sum(not _learns(m) for m in model.modules() if isinstance(m, _BatchNorm))
    return (
        f"frozen: {count:,} of {whole:,} parameters ({len(frozen)} of {len(named)} tensors); "
        f"batch norms that keep their running statistics: {norms}"
    )


def _above(path: str) -> Iterator[str]:
    """Yield a parameter's path and those of the modules that hold it."""
    pieces = path.split(".")
    return (".".join(pieces[:end]) for end in range(len(pieces), 0, -1))


def _tops(named: dict[str, nn.Parameter]) -> list[str]:
    return list(dict.fromkeys(path.partition(".")[0] for path in named))


def _learns(module: nn.Module) -> bool:
    parameters = list(module.parameters(recurse=False))
    return not parameters or any(p.requires_grad for p in parameters)


def hold_norms(model: nn.Module) -> None:
    """Put every batch norm whose parameters are all frozen into eval mode: it uses its statistics and keeps them."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(_learns(module) and model.training)


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Let the same parameters learn after the block as before it."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for parameter, learned in before:
            parameter.requires_grad_(learned)


def lr_factors(parts: Parts, config: TrainConfig) -> dict[int, float]:
    """Return the factor of the learning rate by id of the parameter; what is not there has 1.

    The backbone has `backbone_lr_factor`, and `layer_decay` once more with every block that is farther from the head.
    """
    if config.backbone_lr_factor == 1 and config.layer_decay == 1:
        return {}
    blocks = {path: _block(path) for path in parts.backbone}
    order: list[str] = []  # from input to output; parts without a number between two blocks are one
    merged: dict[str, str] = {}
    for block in dict.fromkeys(blocks.values()):
        plain = not block.rpartition(".")[2].isdigit()
        if plain and order and order[-1].startswith("+"):
            merged[block] = order[-1]
            continue
        merged[block] = f"+{block}" if plain else block
        order.append(merged[block])
    last = len(order)
    depth = {block: last - i for i, block in enumerate(order)}
    return {
        id(p): config.backbone_lr_factor * config.layer_decay ** depth[merged[blocks[path]]]
        for path, p in parts.backbone.items()
    }


def _block(path: str) -> str:
    """Return the path up to its first number: layer1.0, features.3, stages.1; without one its first part."""
    match = re.match(r"(?:[^.]*\.)*?\d+(?=\.)", path)
    return match[0] if match else path.partition(".")[0]


def say_rates(parts: Parts, config: TrainConfig, factors: dict[int, float]) -> str:
    """Return in a line how the backbone learns."""
    epochs = config.freeze_backbone_epochs
    waits = f"is held for {epochs} epoch{'s' * (epochs > 1)}, then " if epochs else ""
    low, high = (min(factors.values()), max(factors.values())) if factors else (1.0, 1.0)
    rate = f"{low:.3g} to {high:.3g}" if low != high else f"{high:.3g}"
    head = ", ".join(dict.fromkeys(path.rpartition(".")[0] or path for path in parts.head))
    backbone = f"the backbone ({len(parts.backbone)} tensors) {waits}learns at {rate} x lr"
    return f"fine-tuning: {backbone}; {head} and attention at lr"
